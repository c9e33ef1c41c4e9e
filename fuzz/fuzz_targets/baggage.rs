//! Each line is a `baggage` header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throughline_core::propagation::{BaggagePropagator, baggage};
use throughline_fuzz::{check, lines};

fuzz_target!(|bytes: &[u8]| {
    check(&BaggagePropagator::new(), &lines("baggage", bytes));

    let text = String::from_utf8_lossy(bytes);
    let read = baggage::parse(&text);
    // Every key stands in the text as it is: keys are not decoded (BAGG-05).
    assert!(read.iter().all(|(key, _)| text.contains(key.as_str())));
    assert!(read.len() <= 64);
});

//! The lines are the single header and the several ones in turn.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throughline_core::Headers;
use throughline_core::propagation::B3Propagator;
use throughline_fuzz::check;

const NAMES: [&str; 6] = ["b3", "X-B3-TraceId", "x-b3-spanid", "X-B3-Sampled", "x-b3-flags", "X-B3-ParentSpanId"];

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    let headers: Headers = NAMES.into_iter().zip(lines).collect();
    check(&B3Propagator::single(), &headers);
    check(&B3Propagator::multi(), &headers);
});

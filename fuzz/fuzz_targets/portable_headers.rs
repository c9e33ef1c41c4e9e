//! `Headers` as a carrier: any headers, read and written under any name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use opentelemetry::propagation::{Extractor, Injector};
use throughline_core::propagation::is_writable;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = throughline_fuzz::headers(bytes);
    let names: Vec<String> = Extractor::keys(&headers).into_iter().map(str::to_owned).collect();
    for name in &names {
        let all = Extractor::get_all(&headers, name).unwrap_or_default();
        assert_eq!(Extractor::get(&headers, name), all.last().copied(), "the last value counts (PROP-K-03)");
        assert!(all.iter().all(|value| !value.is_empty()));
    }
    for (name, value) in names.iter().zip(names.iter().rev()) {
        Injector::set(&mut headers, name, value.clone());
        let written = (is_writable(name, value) && !value.is_empty()).then_some(value.as_str());
        assert_eq!(Extractor::get(&headers, name), written, "writing replaces, or removes (PROP-04, PROP-06, PROP-07)");
    }
});

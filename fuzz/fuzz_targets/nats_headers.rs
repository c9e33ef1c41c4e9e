//! The client's header map as a carrier, and the default formats over it.

#![no_main]

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use throughline_core::propagation::{Propagators, inject, is_writable};
use throughline_nats::{HeaderExtractor, HeaderInjector};
use throughline_testing::conformance::hostile::grammar;

fuzz_target!(|bytes: &[u8]| {
    let mut native = HeaderMap::new();
    for (name, value) in throughline_fuzz::headers(bytes).iter() {
        let value = String::from_utf8_lossy(value);
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(&value)) {
            native.append(name, value);
        }
        let mut copy = native.clone();
        HeaderInjector::new(&mut copy).set(name, value.to_string());
        let written = (is_writable(name, &value) && !value.is_empty()).then_some(&*value);
        assert_eq!(HeaderExtractor::new(&copy).get(name), written, "PROP-04, PROP-06, PROP-07");
    }
    let propagators = Propagators::default();
    let cx = propagators.extract_with_context(&Context::new(), &HeaderExtractor::new(&native));
    inject(&propagators, &cx, &mut HeaderInjector::new(&mut native));
    let written = HeaderExtractor::new(&native);
    for field in propagators.fields() {
        let values = written.get_all(field).unwrap_or_default();
        assert!(values.len() <= 1, "{field}: there twice");
        values.iter().for_each(|value| grammar::check(field, value).unwrap_or_else(|wrong| panic!("{wrong}")));
    }
});

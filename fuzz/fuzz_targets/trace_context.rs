//! The first line is a `traceparent`, the others are `tracestate` headers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throughline_core::propagation::TraceContextPropagator;
use throughline_fuzz::{check, lines};

fuzz_target!(|bytes: &[u8]| {
    let (parent, states) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
    let mut headers = lines("tracestate", states);
    headers.append("traceparent", parent.to_vec());
    check(&TraceContextPropagator::new(), &headers);
});

//! The first line is `uber-trace-id`, each other one the key and the value of an entry, with a colon between.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throughline_core::Headers;
use throughline_core::propagation::JaegerPropagator;
use throughline_fuzz::check;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut headers = Headers::new();
    headers.append("uber-trace-id", lines.next().unwrap_or_default().to_vec());
    for line in lines {
        let (key, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        headers
            .append(format!("uberctx-{}", String::from_utf8_lossy(key)), value.get(1..).unwrap_or_default().to_vec());
    }
    check(&JaegerPropagator::new(), &headers);
});

//! A value of `OTEL_PROPAGATORS`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throughline_core::propagation::Propagators;

fuzz_target!(|text: &str| {
    let propagators = Propagators::from_env_value(Some(text));
    let names: Vec<_> = propagators.names().collect();
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len(), "each once (ENV-16)");
    if let Ok(strict) = Propagators::from_names(text) {
        assert!(strict.names().eq(names), "what is known means the same in code and in the environment");
    }
});

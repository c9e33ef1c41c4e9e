//! A whole set of headers through every format at once, written again over itself.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use throughline_core::propagation::{Propagators, inject};
use throughline_fuzz::{check, headers, write};

static ALL: LazyLock<Propagators> =
    LazyLock::new(|| Propagators::from_names("tracecontext,baggage,b3,b3multi,jaeger").expect("the names are known"));

fuzz_target!(|bytes: &[u8]| {
    let mut set = headers(bytes);
    check(&Propagators::default(), &set);

    // Written over the set, it is what is written into empty headers, in order, and no header of a format is left beside it.
    let cx = ALL.extract_with_context(&Context::new(), &set);
    inject(&*ALL, &cx, &mut set);
    let ours = |name: &str| {
        let name = name.to_ascii_lowercase();
        ALL.fields().any(|field| field == name) || name.starts_with("uberctx-")
    };
    let left: Vec<_> = set.iter().filter(|(name, _)| ours(name)).collect();
    let written = write(&*ALL, &cx);
    assert_eq!(left, written.iter().collect::<Vec<_>>());

    // Every format carries the same span; those of W3C carry all of the baggage.
    let read = |names: &str| {
        let propagators = Propagators::from_names(names).expect("the name is known");
        propagators.extract_with_context(&Context::new(), &written)
    };
    let ids = |cx: &Context| (cx.span().span_context().trace_id(), cx.span().span_context().span_id());
    for format in ["tracecontext", "b3", "b3multi", "jaeger"] {
        assert_eq!(ids(&read(format)), ids(&cx), "{format}");
    }
    assert!(read("baggage").baggage().len() <= cx.baggage().len());
});

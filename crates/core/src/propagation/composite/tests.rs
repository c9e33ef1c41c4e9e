use std::process::Command;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{TraceContextExt, TraceState};
use opentelemetry::{Context, KeyValue};

use super::super::testing::{TRACEPARENT, headers, logged, pairs, read, with_span, write};
use super::*;

fn names(propagators: &Propagators) -> Vec<&'static str> {
    propagators.names().collect()
}

const DEFAULT_NAMES: [&str; 2] = ["tracecontext", "baggage"];

// PROP-18: the default is trace context plus baggage, each once.
#[test]
fn default_is_trace_context_and_baggage() {
    assert_eq!(names(&Propagators::default()), DEFAULT_NAMES);
    let cx = with_span(1, TraceState::NONE).with_baggage([KeyValue::new("k", "v")]);
    let expected = pairs([("traceparent", TRACEPARENT), ("baggage", "k=v")]);
    assert_eq!(write(&Propagators::default(), &cx), expected);
}

// ENV-01, ENV-14, ENV-15, PROP-B-03: the values of `OTEL_PROPAGATORS`.
#[test]
fn reads_the_environment_value() {
    for (value, expected) in [
        (None, &DEFAULT_NAMES[..]),
        (Some(""), &DEFAULT_NAMES),
        (Some("  "), &DEFAULT_NAMES),
        (Some(","), &DEFAULT_NAMES),
        (Some("tracecontext"), &["tracecontext"]),
        (Some("baggage,tracecontext"), &["baggage", "tracecontext"]),
        (Some(" TraceContext , B3 ,"), &["tracecontext", "b3"]),
        (Some("b3,B3,b3"), &["b3"]),
        (Some("b3multi,b3"), &["b3multi", "b3"]),
        (Some("jaeger"), &["jaeger"]),
        (Some("xray,b3,ottrace"), &["b3"]),
        (Some("xray"), &DEFAULT_NAMES),
        (Some("none"), &[]),
        (Some("NONE"), &[]),
        (Some("tracecontext,none"), &[]),
        (Some("none,xray"), &[]),
    ] {
        assert_eq!(names(&Propagators::from_env_value(value)), expected, "{value:?}");
    }
}

// ENV-15: an unknown name is a warning, a known one is not.
#[test]
fn warns_of_unknown_names() {
    let text = logged(|| drop(Propagators::from_env_value(Some("b3,xray"))));
    assert!(text.contains("WARN") && text.contains("xray") && !text.contains("b3"), "{text}");
    assert_eq!(logged(|| drop(Propagators::from_env_value(Some("b3,none")))), "");
}

// ENV-01: the variable itself is read; a child process has it, so that no test sets it for the others.
#[test]
fn from_env_reads_the_variable() {
    let module = module_path!().split_once("::").map_or("", |(_, module)| module);
    for (value, expected) in
        [(None, "tracecontext,baggage"), (Some("b3,xray"), "b3"), (Some(""), "tracecontext,baggage")]
    {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", &format!("{module}::child_compares_the_variable")]);
        child.env("EXPECTED_PROPAGATORS", expected).env_remove(VARIABLE);
        if let Some(value) = value {
            child.env(VARIABLE, value);
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{value:?}: {text}");
    }
}

// ENV-01: the other half of the test above; alone it does nothing.
#[test]
fn child_compares_the_variable() {
    if let Ok(expected) = env::var("EXPECTED_PROPAGATORS") {
        assert_eq!(names(&Propagators::from_env()).join(","), expected);
    }
}

// ENV-16: names in code are the same list, but an unknown one is an error.
#[test]
fn from_names_refuses_an_unknown_name() {
    assert_eq!(names(&Propagators::from_names("b3multi, jaeger").unwrap()), ["b3multi", "jaeger"]);
    assert_eq!(names(&Propagators::from_names("none").unwrap()), [""; 0]);
    assert_eq!(names(&Propagators::from_names("").unwrap()), DEFAULT_NAMES);
    for list in ["tracecontext,XRay", "none,XRay", "XRay,zipkin"] {
        assert_eq!(Propagators::from_names(list).unwrap_err().name(), "XRay", "{list}");
    }
}

// PROP-17, PROP-18: without propagators nothing is written, and the given context comes back, not the thread's.
#[test]
fn none_does_nothing() {
    let current = Context::new().with_baggage([KeyValue::new("of", "thread")]).attach();
    let given = Context::new().with_baggage([KeyValue::new("of", "caller")]);
    let headers = headers([("traceparent", TRACEPARENT), ("baggage", "of=header")]);
    let cx = Propagators::none().extract_with_context(&given, &headers);
    assert_eq!(cx.baggage().get("of").unwrap().as_str(), "caller");
    assert!(!cx.has_active_span());
    assert_eq!(write(&Propagators::none(), &with_span(1, TraceState::NONE)), []);
    assert_eq!(Propagators::none().fields().count(), 0);
    drop(current);
}

// PROP-16: extraction starts from the given context and not from the thread's.
#[test]
fn extraction_ignores_the_current_context() {
    let current = with_span(1, TraceState::NONE).with_baggage([KeyValue::new("k", "v")]).attach();
    let cx = read(&Propagators::default(), [("other", "x")]);
    assert!(!cx.has_active_span() && cx.baggage().is_empty());
    drop(current);
}

// PROP-18: every format of a list is written and read, a later one that carries a span wins.
#[test]
fn runs_all_formats_in_order() {
    let propagators = Propagators::from_names("tracecontext,baggage,b3,jaeger").unwrap();
    let cx = with_span(1, TraceState::NONE);
    let written: Vec<_> = write(&propagators, &cx).into_iter().map(|(name, _)| name).collect();
    assert_eq!(written, ["traceparent", "b3", "uber-trace-id"]);

    let other = "00000000000000000000000000000001-0000000000000002-1";
    let cx = read(&propagators, [("b3", other), ("traceparent", TRACEPARENT), ("baggage", "k=v")]);
    assert_eq!(cx.span().span_context().trace_id().to_string(), &other[..32]);
    assert_eq!(cx.baggage().len(), 1);
    let cx = read(&propagators, [("b3", "garbage"), ("traceparent", TRACEPARENT)]);
    assert!(cx.span().span_context().is_valid());
}

// PROP-05: the fields name every header of every format, once.
#[test]
fn fields_are_complete() {
    let propagators = Propagators::from_names("tracecontext,baggage,b3,b3multi,jaeger").unwrap();
    let expected = [
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "X-B3-TraceId",
        "X-B3-SpanId",
        "X-B3-Sampled",
        "X-B3-Flags",
        "X-B3-ParentSpanId",
        "uber-trace-id",
    ];
    assert_eq!(propagators.fields().collect::<Vec<_>>(), expected);
    let twice = Propagators::default().with(TraceContextPropagator::new());
    assert_eq!(twice.fields().collect::<Vec<_>>(), ["traceparent", "tracestate", "baggage"]);
}

// PROP-18: a propagator of the user's own takes part.
#[test]
fn runs_a_propagator_of_the_user() {
    let propagators = Propagators::none().with(B3Propagator::single());
    assert_eq!(names(&propagators), ["custom"]);
    let cx = read(&propagators, [("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")]);
    assert_eq!(write(&propagators, &cx).len(), 1);
}

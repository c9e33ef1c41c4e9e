use std::borrow::Cow;

/// Names that most messages have.
const KNOWN: [&str; 18] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "X-B3-TraceId",
    "X-B3-SpanId",
    "X-B3-Sampled",
    "X-B3-Flags",
    "X-B3-ParentSpanId",
    "content-type",
    "correlation-id",
    "message-id",
    "reply-to",
    "Content-Type",
    "correlation_id",
    "message_id",
    "reply_to",
];

/// Returns the name of a header as [`Headers`](crate::Headers) hold it: without an allocation where it is one that most messages have,
/// or one of the adapter's `own`.
///
/// # Examples
///
/// ```
/// use std::borrow::Cow;
/// use throughline_core::propagation::header_name;
/// assert!(matches!(header_name("traceparent", &[]), Cow::Borrowed("traceparent")));
/// assert!(matches!(header_name("Nats-Msg-Id", &["Nats-Msg-Id"]), Cow::Borrowed("Nats-Msg-Id")));
/// assert!(matches!(header_name("tenant", &[]), Cow::Owned(_)));
/// ```
#[must_use]
pub fn header_name(name: &str, own: &[&'static str]) -> Cow<'static, str> {
    let known = KNOWN.iter().chain(own).find(|known| **known == name);
    known.map_or_else(|| Cow::Owned(name.to_owned()), |known| Cow::Borrowed(*known))
}

/// Tells whether a header is one of the propagation formats, in any spelling.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::is_propagation_header;
/// assert!(is_propagation_header("Traceparent") && is_propagation_header("uberctx-tenant"));
/// assert!(!is_propagation_header("tenant"));
/// ```
#[must_use]
pub fn is_propagation_header(name: &str) -> bool {
    let starts_with = |start: &str| name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    holds_one_context(name)
        || ["tracestate", "baggage"].iter().any(|field| name.eq_ignore_ascii_case(field))
        || starts_with("x-b3-")
        || starts_with("uberctx-")
}

/// Tells whether a header holds one context, so that of several only one counts.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::holds_one_context;
/// assert!(holds_one_context("Traceparent"));
/// assert!(!holds_one_context("baggage"));
/// ```
#[must_use]
pub fn holds_one_context(name: &str) -> bool {
    ["traceparent", "b3", "uber-trace-id"].iter().any(|field| name.eq_ignore_ascii_case(field))
}

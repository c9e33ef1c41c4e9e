//! What the W3C publishes as test cases of Trace Context and as examples of Baggage, as facts: one row each, to be held against the
//! specifications. Where this project does something else on purpose, the row says so.

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;

use super::super::Propagators;
use crate::message::Headers;

/// The ids that the rows are about.
const TRACE: &str = "12345678901234567890123456789012";
const SPAN: &str = "1234567890123456";

/// A sampled parent of [`TRACE`] and [`SPAN`].
const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";

/// The trace goes on, and this is the `tracestate` that is sent on; empty for none.
const fn goes_on(state: &'static str) -> Option<&'static str> {
    Some(state)
}

// A new trace starts; a `tracestate` beside it is dropped (PROP-11).
const NEW: Option<&str> = None;

/// One published case.
struct Row {
    /// The rule of the checklist.
    id: &'static str,
    /// What is tried.
    case: &'static str,
    headers: &'static [(&'static str, &'static str)],
    expected: Option<&'static str>,
}

const fn row(
    id: &'static str,
    case: &'static str,
    headers: &'static [(&'static str, &'static str)],
    expected: Option<&'static str>,
) -> Row {
    Row { id, case, headers, expected }
}

const TRACEPARENT: &[Row] = &[
    row("PROP-08", "no header", &[], NEW),
    row("PROP-09", "traceparent alone", &[("traceparent", PARENT)], goes_on("")),
    row(
        "PROP-09",
        "not sampled",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-00")],
        goes_on(""),
    ),
    // Difference: the published case wants a new trace. A message broker may deliver a copied header beside the new one; the last
    // value counts here, the first one on NATS (PROP-K-03, PROP-N-02).
    row(
        "PROP-K-03",
        "traceparent twice",
        &[("traceparent", "00-12345678901234567890123456789011-1234567890123456-01"), ("traceparent", PARENT)],
        goes_on(""),
    ),
    row("PROP-03", "name in other letters", &[("TraceParent", PARENT)], goes_on("")),
    row("PROP-03", "name in mixed letters", &[("TrAcEpArEnT", PARENT)], goes_on("")),
    row("PROP-03", "name in capitals", &[("TRACEPARENT", PARENT)], goes_on("")),
    row("PROP-03", "name with a dash", &[("trace-parent", PARENT)], NEW),
    row("PROP-03", "name with a dot", &[("trace.parent", PARENT)], NEW),
    row(
        "PROP-09",
        "version 00 and a dot",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-01.")],
        NEW,
    ),
    row(
        "PROP-09",
        "version 00 and a dash",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-01-")],
        NEW,
    ),
    row(
        "PROP-09",
        "version 00 and a field",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-01-later")],
        NEW,
    ),
    row(
        "PROP-10",
        "a later version",
        &[("traceparent", "cc-12345678901234567890123456789012-1234567890123456-01")],
        goes_on(""),
    ),
    row(
        "PROP-10",
        "a later version and a field",
        &[("traceparent", "cc-12345678901234567890123456789012-1234567890123456-01-later")],
        goes_on(""),
    ),
    row(
        "PROP-10",
        "a later version and a dot",
        &[("traceparent", "cc-12345678901234567890123456789012-1234567890123456-01.later")],
        NEW,
    ),
    row("PROP-09", "version ff", &[("traceparent", "ff-12345678901234567890123456789012-1234567890123456-01")], NEW),
    row(
        "PROP-09",
        "version that is no number",
        &[("traceparent", ".0-12345678901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "version that ends in a dot",
        &[("traceparent", "0.-12345678901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "version of three digits",
        &[("traceparent", "000-12345678901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "version of four digits",
        &[("traceparent", "0000-12345678901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "version of one digit",
        &[("traceparent", "0-12345678901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "trace id of zeros",
        &[("traceparent", "00-00000000000000000000000000000000-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "trace id that begins with a dot",
        &[("traceparent", "00-.2345678901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "trace id that ends in a dot",
        &[("traceparent", "00-1234567890123456789012345678901.-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "trace id of 33 digits",
        &[("traceparent", "00-123456789012345678901234567890123-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "trace id of 31 digits",
        &[("traceparent", "00-1234567890123456789012345678901-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "trace id in capitals",
        &[("traceparent", "00-ABCDEF78901234567890123456789012-1234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "parent id of zeros",
        &[("traceparent", "00-12345678901234567890123456789012-0000000000000000-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "parent id that begins with a dot",
        &[("traceparent", "00-12345678901234567890123456789012-.234567890123456-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "parent id that ends in a dot",
        &[("traceparent", "00-12345678901234567890123456789012-123456789012345.-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "parent id of 17 digits",
        &[("traceparent", "00-12345678901234567890123456789012-12345678901234567-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "parent id of 15 digits",
        &[("traceparent", "00-12345678901234567890123456789012-123456789012345-01")],
        NEW,
    ),
    row(
        "PROP-09",
        "flags that begin with a dot",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-.0")],
        NEW,
    ),
    row(
        "PROP-09",
        "flags that end in a dot",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-0.")],
        NEW,
    ),
    row(
        "PROP-09",
        "flags of three digits",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-001")],
        NEW,
    ),
    row(
        "PROP-09",
        "flags of one digit",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-1")],
        NEW,
    ),
    row(
        "PROP-09",
        "space before",
        &[("traceparent", " 00-12345678901234567890123456789012-1234567890123456-01")],
        goes_on(""),
    ),
    row(
        "PROP-09",
        "tab before",
        &[("traceparent", "\t00-12345678901234567890123456789012-1234567890123456-01")],
        goes_on(""),
    ),
    row(
        "PROP-09",
        "space behind",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-01 ")],
        goes_on(""),
    ),
    row(
        "PROP-09",
        "tab behind",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-01\t")],
        goes_on(""),
    ),
    row(
        "PROP-09",
        "space and tab around",
        &[("traceparent", "\t 00-12345678901234567890123456789012-1234567890123456-01 \t")],
        goes_on(""),
    ),
    row(
        "PROP-09",
        "every flag set",
        &[("traceparent", "00-12345678901234567890123456789012-1234567890123456-ff")],
        goes_on(""),
    ),
];

const TRACESTATE: &[Row] = &[
    row("PROP-11", "without traceparent", &[("tracestate", "foo=1")], NEW),
    row("PROP-11", "beside a malformed traceparent", &[("traceparent", "00-1-1-01"), ("tracestate", "foo=1")], NEW),
    row(
        "PROP-11",
        "beside traceparent",
        &[("traceparent", PARENT), ("tracestate", "foo=1,bar=2")],
        goes_on("foo=1,bar=2"),
    ),
    row("PROP-03", "name with a dash", &[("traceparent", PARENT), ("trace-state", "foo=1")], goes_on("")),
    row("PROP-03", "name with a dot", &[("traceparent", PARENT), ("trace.state", "foo=1")], goes_on("")),
    row("PROP-03", "name in other letters", &[("traceparent", PARENT), ("TraceState", "foo=1")], goes_on("foo=1")),
    row("PROP-03", "name in capitals", &[("traceparent", PARENT), ("TRACESTATE", "foo=1")], goes_on("foo=1")),
    row("PROP-06", "empty", &[("traceparent", PARENT), ("tracestate", "")], goes_on("")),
    row(
        "PROP-12",
        "empty, then one",
        &[("traceparent", PARENT), ("tracestate", ""), ("tracestate", "foo=1")],
        goes_on("foo=1"),
    ),
    row(
        "PROP-12",
        "one, then empty",
        &[("traceparent", PARENT), ("tracestate", "foo=1"), ("tracestate", "")],
        goes_on("foo=1"),
    ),
    row(
        "PROP-12",
        "several headers",
        &[("traceparent", PARENT), ("tracestate", "foo=1,"), ("tracestate", "bar=2,rojo=1"), ("tracestate", "congo=2")],
        goes_on("foo=1,bar=2,rojo=1,congo=2"),
    ),
    // The published case leaves open whether a repeated key is kept or dropped.
    row("PROP-13", "a key twice", &[("traceparent", PARENT), ("tracestate", "foo=1,foo=1")], goes_on("foo=1")),
    row(
        "PROP-13",
        "a key with two values",
        &[("traceparent", PARENT), ("tracestate", "foo=1,foo=2")],
        goes_on("foo=1"),
    ),
    row(
        "PROP-12",
        "a key in two headers",
        &[("traceparent", PARENT), ("tracestate", "foo=1"), ("tracestate", "foo=2")],
        goes_on("foo=1"),
    ),
    row(
        "PROP-14",
        "every character of keys",
        &[("traceparent", PARENT), ("tracestate", "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1")],
        goes_on("abcdefghijklmnopqrstuvwxyz0123456789_-*/=1"),
    ),
    row("PROP-14", "a tenant", &[("traceparent", PARENT), ("tracestate", "foo@bar=1")], goes_on("foo@bar=1")),
    row(
        "PROP-14",
        "every character of values",
        &[("traceparent", PARENT), ("tracestate", "foo= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~")],
        goes_on("foo= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~"),
    ),
    row(
        "PROP-14",
        "space around members",
        &[("traceparent", PARENT), ("tracestate", "foo=1 \t , \t bar=2, \t baz=3")],
        goes_on("foo=1,bar=2,baz=3"),
    ),
    row("PROP-14", "tab around the list", &[("traceparent", PARENT), ("tracestate", "\tfoo=1\t")], goes_on("foo=1")),
    row("PROP-14", "space before the list", &[("traceparent", PARENT), ("tracestate", " foo=1")], goes_on("foo=1")),
    row("PROP-14", "space in a key", &[("traceparent", PARENT), ("tracestate", "foo =1")], goes_on("")),
    row("PROP-14", "capitals in a key", &[("traceparent", PARENT), ("tracestate", "FOO=1")], goes_on("")),
    row("PROP-14", "a dot in a key", &[("traceparent", PARENT), ("tracestate", "foo.bar=1")], goes_on("")),
    row("PROP-14", "a key that begins with @", &[("traceparent", PARENT), ("tracestate", "@foo=1,bar=2")], goes_on("")),
    // Level 2 allows `@` anywhere but at the start. The API's own type is of level 1 and cannot hold such a key: it goes alone.
    row(
        "PROP-14",
        "a key with two @",
        &[("traceparent", PARENT), ("tracestate", "foo@bar@baz=1,bar=2")],
        goes_on("bar=2"),
    ),
    row("PROP-14", "a key with @@", &[("traceparent", PARENT), ("tracestate", "foo@@bar=1,bar=2")], goes_on("bar=2")),
    row(
        "PROP-14",
        "a key that ends with @",
        &[("traceparent", PARENT), ("tracestate", "foo@=1,bar=2")],
        goes_on("foo@=1,bar=2"),
    ),
    row("PROP-14", "two = in a member", &[("traceparent", PARENT), ("tracestate", "foo=bar=baz")], goes_on("")),
    row("PROP-14", "an empty value", &[("traceparent", PARENT), ("tracestate", "foo=,bar=3")], goes_on("")),
    row("PROP-14", "no value", &[("traceparent", PARENT), ("tracestate", "foo,bar=3")], goes_on("")),
];

fn contexts(rows: &[Row]) -> impl Iterator<Item = (&Row, Context)> {
    rows.iter().map(|row| {
        let headers: Headers = row.headers.iter().copied().collect();
        (row, Propagators::default().extract_with_context(&Context::new(), &headers))
    })
}

/// Returns the `tracestate` that is sent on.
fn sent_on(cx: &Context) -> (Headers, String) {
    let mut headers = Headers::new();
    Propagators::default().inject_context(cx, &mut headers);
    let state = headers.get("tracestate").unwrap_or_default().to_owned();
    (headers, state)
}

#[test]
fn every_published_case_of_trace_context() {
    for (row, cx) in contexts(TRACEPARENT).chain(contexts(TRACESTATE)) {
        let named = format!("{}, {}: {:?}", row.id, row.case, row.headers);
        let (headers, state) = sent_on(&cx);
        match row.expected {
            NEW => assert!(!cx.has_active_span() && headers.is_empty(), "{named}"),
            Some(expected) => {
                let span = cx.span().span_context().clone();
                assert_eq!(
                    (span.trace_id().to_string(), span.span_id().to_string()),
                    (TRACE.into(), SPAN.into()),
                    "{named}"
                );
                assert_eq!(state, expected, "{named}");
                assert!(headers.get("traceparent").is_some_and(|text| text.starts_with("00-")), "{named}");
            }
        }
    }
}

// Level 2 wants the random flag kept, and all flags that it does not know written as zero (PROP-15).
#[test]
fn the_sampled_and_the_random_flag_are_sent_on() {
    for (flags, expected) in [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("fe", "02"), ("ff", "03")] {
        let parent = format!("00-{TRACE}-{SPAN}-{flags}");
        let headers: Headers = [("traceparent", parent)].into_iter().collect();
        let (headers, _) = sent_on(&Propagators::default().extract_with_context(&Context::new(), &headers));
        assert_eq!(headers.get("traceparent"), Some(&*format!("00-{TRACE}-{SPAN}-{expected}")), "PROP-15: {flags}");
    }
}

/// The published limits of `tracestate`: 32 members, keys and values of 256 characters.
#[test]
fn the_published_limits_of_tracestate() {
    let list = |count: usize| (1..=count).map(|n| format!("bar{n:02}={n:02}")).collect::<Vec<_>>().join(",");
    let (key, value) =
        (|length: usize| format!("{}=1", "z".repeat(length)), |length: usize| format!("a={}", "v".repeat(length)));
    let tenant = |before: usize, behind: usize| format!("foo=1,{}@{}=1", "t".repeat(before), "v".repeat(behind));
    for (case, state, expected) in [
        ("32 members", list(32), list(32)),
        // Difference: the published case drops the whole list; the specification lets members be cut from the right (PROP-13).
        ("33 members", list(33), list(32)),
        ("a key of 256 characters", key(256), key(256)),
        ("a key of 257 characters", key(257), String::new()),
        // The API's own type takes at most 13 characters behind `@`, the specification any number: such a member goes alone.
        ("a key of 241 characters, @ and 13", tenant(241, 13), tenant(241, 13)),
        ("a key of 241 characters, @ and 14", tenant(241, 14), "foo=1".to_owned()),
        ("a key of 242 characters, @ and 1", tenant(242, 1), tenant(242, 1)),
        ("a key of 1 character, @ and 15", tenant(1, 15), "foo=1".to_owned()),
        ("a value of 256 characters", value(256), value(256)),
        ("a value of 257 characters", value(257), String::new()),
    ] {
        let headers: Headers = [("traceparent", PARENT.to_owned()), ("tracestate", state)].into_iter().collect();
        let cx = Propagators::default().extract_with_context(&Context::new(), &headers);
        assert_eq!(sent_on(&cx).1, expected, "PROP-13: {case}");
    }
}

/// Key, value and properties.
type Entry = (&'static str, &'static str, &'static str);

/// The rule, the headers, and the entries in the order of their keys.
const BAGGAGE: &[(&str, &[&str], &[Entry])] = &[
    ("BAGG-01", &["SomeKey=SomeValue"], &[("SomeKey", "SomeValue", "")]),
    (
        "BAGG-01",
        &["SomeKey=SomeValue,SomeKey2=SomeValue2"],
        &[("SomeKey", "SomeValue", ""), ("SomeKey2", "SomeValue2", "")],
    ),
    (
        "BAGG-01",
        &["SomeKey = SomeValue , SomeKey2 = SomeValue2"],
        &[("SomeKey", "SomeValue", ""), ("SomeKey2", "SomeValue2", "")],
    ),
    (
        "BAGG-01",
        &["SomeKey \t = \t SomeValue \t , \t SomeKey2 \t = \t SomeValue2 \t"],
        &[("SomeKey", "SomeValue", ""), ("SomeKey2", "SomeValue2", "")],
    ),
    ("BAGG-04", &["SomeKey=SomeValue=equals"], &[("SomeKey", "SomeValue=equals", "")]),
    ("BAGG-01", &["SomeKey="], &[("SomeKey", "", "")]),
    ("BAGG-06", &["SomeKey=SomeValue;SomeProp"], &[("SomeKey", "SomeValue", "SomeProp")]),
    ("BAGG-06", &["SomeKey \t = \t SomeValue \t ; \t SomeProp"], &[("SomeKey", "SomeValue", "SomeProp")]),
    ("BAGG-06", &["SomeKey=SomeValue;SomeProp=PropVal"], &[("SomeKey", "SomeValue", "SomeProp=PropVal")]),
    (
        "BAGG-06",
        &["SomeKey=SomeValue;SomeProp;SecondProp=PropValue"],
        &[("SomeKey", "SomeValue", "SomeProp;SecondProp=PropValue")],
    ),
    ("BAGG-06", &["SomeKey=SomeValue;SomeProp=PropVal=More"], &[("SomeKey", "SomeValue", "SomeProp=PropVal=More")]),
    (
        "BAGG-03",
        &["SomeKey=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29"],
        &[("SomeKey", "\t \"';=asdf!@#$%^&*()", "")],
    ),
    ("BAGG-03", &["serverNode=DF%2028"], &[("serverNode", "DF 28", "")]),
    (
        "BAGG-01",
        &["key1=value1;property1;property2, key2 = value2, key3=value3; propertyKey=propertyValue"],
        &[
            ("key1", "value1", "property1;property2"),
            ("key2", "value2", ""),
            ("key3", "value3", "propertyKey=propertyValue"),
        ],
    ),
    (
        "BAGG-01",
        &["userId=alice,serverNode=DF%2028,isProduction=false"],
        &[("isProduction", "false", ""), ("serverNode", "DF 28", ""), ("userId", "alice", "")],
    ),
    (
        "BAGG-03",
        &["userId=Am%C3%A9lie,serverNode=DF%2028,isProduction=false"],
        &[("isProduction", "false", ""), ("serverNode", "DF 28", ""), ("userId", "Amélie", "")],
    ),
    (
        "PROP-12",
        &["userId=alice", "serverNode=DF%2028,isProduction=false"],
        &[("isProduction", "false", ""), ("serverNode", "DF 28", ""), ("userId", "alice", "")],
    ),
    ("BAGG-05", &["SomeKey=1,SomeKey=2"], &[("SomeKey", "2", "")]),
    ("BAGG-05", &["somekey=1,SomeKey=2"], &[("SomeKey", "2", ""), ("somekey", "1", "")]),
    ("BAGG-05", &["Some%20Key=1"], &[("Some%20Key", "1", "")]),
    // The specification lets an implementation replace what is no UTF-8; the member is kept.
    ("BAGG-03", &["SomeKey=%FF"], &[("SomeKey", "\u{fffd}", "")]),
    ("BAGG-10", &["SomeKey"], &[]),
    ("BAGG-10", &["=SomeValue"], &[]),
    ("BAGG-10", &[""], &[]),
];

#[test]
fn every_published_example_of_baggage() {
    for (id, values, expected) in BAGGAGE {
        let headers: Headers = values.iter().map(|value| ("baggage", *value)).collect();
        let cx = Propagators::default().extract_with_context(&Context::new(), &headers);
        let entries = |cx: &Context| super::entries(cx.baggage());
        let own = |text: &&'static str| (*text).to_owned();
        let expected: Vec<_> = expected.iter().map(|(key, value, more)| (own(key), own(value), own(more))).collect();
        assert_eq!(entries(&cx), expected, "{id}: {values:?}");

        let (written, _) = sent_on(&cx);
        let again = Propagators::default().extract_with_context(&Context::new(), &written);
        assert_eq!(entries(&again), expected, "{id}, one hop later: {values:?}");
    }
}

/// The published limits: 64 members and 8192 bytes are propagated.
#[test]
fn the_published_limits_of_baggage() {
    let list = |count: usize, size: usize| {
        (0..count).map(|n| format!("key{n:02}={}", "a".repeat(size))).collect::<Vec<_>>().join(",")
    };
    // 64 members of 127 bytes and 63 commas, or one member, of 8192 bytes at most.
    for (id, text, expected) in [
        ("BAGG-07", list(64, 121), 64),
        ("BAGG-07", list(1, 8_186), 1),
        ("BAGG-09", list(1, 8_187), 0),
        ("BAGG-09", list(65, 1), 64),
    ] {
        let headers: Headers = [("baggage", text.clone())].into_iter().collect();
        let cx = Propagators::default().extract_with_context(&Context::new(), &headers);
        assert_eq!(cx.baggage().len(), expected, "{id}: {} bytes", text.len());
        let written = sent_on(&cx).0;
        let whole = written.get("baggage") == Some(text.as_str());
        assert_eq!(whole, id == "BAGG-07", "{id}: {} bytes", text.len());
    }
}

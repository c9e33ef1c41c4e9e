use opentelemetry::baggage::BaggageExt;
use opentelemetry::{Context, KeyValue};

use super::super::testing::{TRACEPARENT, headers, pairs, read, span_context, with_span, write};
use super::*;
use crate::message::Headers;

const PROPAGATOR: TraceContextPropagator = TraceContextPropagator::new();

fn parent(value: &str) -> SpanContext {
    read(&PROPAGATOR, [("traceparent", value)]).span().span_context().clone()
}

/// Returns the trace state read from the headers beside a valid `traceparent`, as text.
fn state(values: &[&str]) -> String {
    let mut headers = headers([("traceparent", TRACEPARENT)]);
    for value in values {
        headers.append("tracestate", (*value).to_owned());
    }
    let cx = PROPAGATOR.extract_with_context(&Context::new(), &headers);
    let span_context = cx.span().span_context().clone();
    assert!(span_context.is_valid(), "PROP-11: a bad tracestate never invalidates traceparent");
    span_context.trace_state().header()
}

/// Writes a list of members that the API accepts and returns the header.
fn written(members: &[(String, String)]) -> Option<String> {
    let state = TraceState::from_key_value(members.iter().cloned()).unwrap();
    let mut headers = Headers::new();
    PROPAGATOR.inject_context(&with_span(1, state), &mut headers);
    headers.get("tracestate").map(str::to_owned)
}

fn member(key: &str, length: usize) -> (String, String) {
    (key.to_owned(), "v".repeat(length - key.len() - 1))
}

// PROP-09: the grammar of W3C, including its published cases.
#[test]
fn accepts_a_well_formed_traceparent() {
    let (sampled, unsampled) = (span_context(1, TraceState::NONE, true), span_context(0, TraceState::NONE, true));
    for (value, expected) in [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &sampled),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", &unsampled),
        (" \t00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\t ", &sampled),
    ] {
        assert_eq!(&parent(value), expected, "{value:?}");
    }
}

// PROP-08, PROP-09: whatever breaks the grammar is absent, also what the SDK's propagator lets in.
#[test]
fn treats_a_malformed_traceparent_as_absent() {
    let given = with_span(1, TraceState::NONE).with_baggage([KeyValue::new("k", "v")]);
    for value in [
        "",
        " ",
        "garbage",
        "00-1-1-01",
        "0-1-1-1",
        "+0-+1-+1-+1",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-.0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-010",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c0-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033310-01",
        "00-.af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-.7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
        "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "000-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ".0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0A-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "\u{a0}00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
        "00-éaf7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
    ] {
        let headers = headers([("traceparent", value)]);
        let cx = PROPAGATOR.extract_with_context(&given, &headers);
        assert_eq!(cx.span().span_context(), given.span().span_context(), "{value:?}");
        assert_eq!(cx.baggage().len(), 1, "{value:?}");
        assert!(!parent(value).is_valid(), "{value:?}");
    }
}

// PROP-08: no header at all returns the given context.
#[test]
fn returns_the_given_context_without_headers() {
    let given = with_span(1, TraceState::NONE);
    let cx = PROPAGATOR.extract_with_context(&given, &Headers::new());
    assert_eq!(cx.span().span_context(), given.span().span_context());
}

// PROP-09, PROP-10: a later version may be longer, is read as version 00 and written back as 00.
#[test]
fn reads_a_higher_version_as_version_00() {
    for value in [
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        "fe-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
    ] {
        let cx = read(&PROPAGATOR, [("traceparent", value)]);
        assert_eq!(cx.span().span_context(), &span_context(1, TraceState::NONE, true), "{value:?}");
        assert_eq!(write(&PROPAGATOR, &cx), pairs([("traceparent", TRACEPARENT)]), "{value:?}");
    }
    let broken = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what-the-future";
    assert!(!parent(broken).is_valid());
}

// PROP-15: of the flags the sampled and the random bit are read and written.
#[test]
fn keeps_the_sampled_and_the_random_flag() {
    for flags in 0..=u8::MAX {
        let value = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags:02x}");
        assert_eq!(parent(&value).trace_flags(), TraceFlags::new(flags & 3), "{value}");
        let cx = with_span(flags, TraceState::NONE);
        let expected = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{:02x}", flags & 3);
        assert_eq!(write(&PROPAGATOR, &cx), pairs([("traceparent", &expected)]));
    }
}

// PROP-01, PROP-02, PROP-06: a valid context is written in lower case, and without an empty `tracestate`.
#[test]
fn writes_a_valid_context() {
    let bare = with_span(1, TraceState::NONE);
    assert_eq!(write(&PROPAGATOR, &bare), pairs([("traceparent", TRACEPARENT)]));

    let state = TraceState::from_key_value([("rojo", "1"), ("congo", "2")]).unwrap();
    assert_eq!(
        write(&PROPAGATOR, &with_span(1, state)),
        pairs([("traceparent", TRACEPARENT), ("tracestate", "rojo=1,congo=2")]),
    );
    assert_eq!(write(&PROPAGATOR, &Context::new()), []);
}

// PROP-06: an injector that is not ours gets no empty `tracestate` either.
#[test]
fn sets_no_empty_tracestate_on_any_carrier() {
    let mut carrier = std::collections::HashMap::new();
    PROPAGATOR.inject_context(&with_span(1, TraceState::NONE), &mut carrier);
    assert_eq!(carrier.len(), 1);
}

// PROP-11: without a valid `traceparent` a `tracestate` says nothing.
#[test]
fn ignores_tracestate_without_traceparent() {
    for entries in [[("tracestate", "a=1"), ("other", "x")], [("tracestate", "a=1"), ("traceparent", "00-1-1-01")]] {
        assert!(!read(&PROPAGATOR, entries).has_active_span(), "{entries:?}");
    }
}

// PROP-12: several headers are one list, in their order.
#[test]
fn joins_several_tracestate_headers() {
    assert_eq!(state(&["a=1,b=2", "c=3"]), "a=1,b=2,c=3");
    assert_eq!(state(&["a=1", "", ",", "b=2,"]), "a=1,b=2");
}

/// W3C's published cases: space around members, empty members, all allowed characters, longest keys and values.
#[test]
fn reads_every_valid_tracestate() {
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (0x20..=0x7e_u8).map(char::from).filter(|c| !",=".contains(*c)).collect();
    let longest = format!("{}={}", "z".repeat(256), "v".repeat(256));
    for (headers, expected) in [
        (vec!["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3".to_owned()),
        (vec!["foo=1,,,bar=2,"], "foo=1,bar=2".to_owned()),
        (vec![""], String::new()),
        (vec!["0foo=1"], "0foo=1".to_owned()),
        (vec!["foo= 1"], "foo= 1".to_owned()),
        (vec!["foo@vendor=1"], "foo@vendor=1".to_owned()),
        (vec![&format!("{key}={value}")], format!("{key}={value}")),
        (vec![&longest], longest.clone()),
    ] {
        assert_eq!(state(&headers), expected, "{headers:?}");
    }
}

/// W3C's published cases: of a repeated key one member stays, the first.
#[test]
fn keeps_the_first_of_a_repeated_key() {
    assert_eq!(state(&["foo=1,foo=2", "bar=1,foo=1"]), "foo=1,bar=1");
}

// PROP-14 and W3C's published cases: one malformed member makes the whole list invalid.
#[test]
fn drops_a_malformed_tracestate_whole() {
    let (long_key, long_value) = (format!("{}=1", "z".repeat(257)), format!("a={}", "v".repeat(257)));
    for header in [
        "foo=1,bar",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1,bar=2",
        "_foo=1",
        "=1",
        "foo=,bar=3",
        "foo=bar=baz",
        "a=1,b=x\ry",
        "a=1,b=x\ny",
        "a=1,b=x\ty",
        "a=1,b=x\0y",
        "a=1,b=x\u{7f}",
        "a=1,b=é",
        "a=1\r\n",
        "é=1",
        &long_key,
        &long_value,
    ] {
        assert_eq!(state(&[header]), "", "{header:?}");
        assert_eq!(state(&["good=1", header]), "", "{header:?}");
    }
}

/// A key of level 2 that the API cannot hold goes alone.
#[test]
fn leaves_out_a_key_that_the_api_cannot_hold() {
    for key in ["foo@bar@baz", "foo@abcdefghijklmn", "foo@_bar"] {
        assert_eq!(state(&[&format!("a=1,{key}=2,b=3")]), "a=1,b=3", "{key}");
    }
    assert_eq!(state(&["a=1,foo@abcdefghijklm=2,b=3"]), "a=1,foo@abcdefghijklm=2,b=3");
}

// PROP-13: 32 members are kept; of more, long ones go first and then those on the right.
#[test]
fn cuts_what_is_read_to_32_members() {
    let list = |count: usize| (0..count).map(|n| format!("k{n:02}=v")).collect::<Vec<_>>().join(",");
    assert_eq!(state(&[&list(32)]), list(32));
    assert_eq!(state(&[&list(33)]), list(32));
    assert_eq!(state(&[&list(90)]), list(32));

    let long = format!("long={}", "v".repeat(124));
    assert_eq!(state(&[&long, &list(32)]), list(32), "129 characters are long");
    let short = format!("long={}", "v".repeat(123));
    assert_eq!(state(&[&short, &list(32)]), format!("{short},{}", list(31)), "128 are not");
}

// PROP-13: 512 characters and more are written whole.
#[test]
fn writes_512_characters_whole() {
    let members: Vec<_> = ["a", "b", "c", "d"].map(|key| member(key, 127)).into();
    let text = written(&members).unwrap();
    assert_eq!((text.len(), text.split(',').count()), (511, 4));

    let mut members = members;
    members.push(member(&"z".repeat(256), 513));
    assert_eq!(written(&members).unwrap().len(), 1025, "less than 512 would stay if this were cut");
}

// PROP-13: when cutting, whole members go, first long ones, then from the right; 512 characters always stay.
#[test]
fn cuts_what_is_written_by_whole_members() {
    let mut members = vec![member("first", 100), member("long", 200)];
    members.extend((0..9).map(|n| member(&format!("k{n}"), 100)));
    let text = written(&members).unwrap();
    let keys: Vec<_> = text.split(',').map(|member| member.split_once('=').unwrap().0).collect();
    assert_eq!(keys, ["first", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"]);

    members.extend((0..9).map(|n| member(&format!("m{n}"), 100)));
    let text = written(&members).unwrap();
    assert!(text.starts_with("first=") && text.ends_with('v'), "{text}");
    assert!(!text.contains("long="), "{text}");
    assert!((512..=1025).contains(&text.len()), "{}", text.len());
    assert!(text.split(',').all(|member| member.len() == 100), "{text}");
}

// PROP-13: even when all members are of the greatest length, 512 characters stay.
#[test]
fn leaves_512_characters_of_the_longest_members() {
    let key = |n: usize| format!("{n:0>256}");
    let members: Vec<_> = (0..5).map(|n| member(&key(n), 513)).collect();
    let text = written(&members).unwrap();
    assert_eq!(text, format!("{}={}", key(0), "v".repeat(256)));
}

// PROP-14: what another propagator let in is not sent on.
#[test]
fn writes_no_member_that_breaks_the_grammar() {
    let members = [("a", "1"), ("b", "x\r\ny"), ("c", "é"), ("d", "")];
    let members = members.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(written(&members).as_deref(), Some("a=1"));
    assert_eq!(written(&members[1..]), None);
}

// PROP-23: the context of CloudEvents is not the transport's.
#[test]
fn does_not_read_the_cloudevents_extension() {
    let cx = read(&PROPAGATOR, [("ce_traceparent", TRACEPARENT), ("ce-traceparent", TRACEPARENT)]);
    assert!(!cx.has_active_span());
}

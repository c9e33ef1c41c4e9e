use opentelemetry::KeyValue;
use opentelemetry::baggage::{BaggageMetadata, KeyValueMetadata};

use super::super::dropped_members;
use super::super::testing::{headers, logged, pairs, read, write};
use super::*;
use crate::message::Headers;

const PROPAGATOR: BaggagePropagator = BaggagePropagator::new();

/// Returns key, value and properties, ordered by key.
fn entries(baggage: &Baggage) -> Vec<(&str, &str, &str)> {
    let mut entries: Vec<_> =
        baggage.iter().map(|(key, (value, meta))| (key.as_str(), value.as_str(), meta.as_str())).collect();
    entries.sort_unstable();
    entries
}

fn of(key: &'static str, value: &str, properties: &str) -> Baggage {
    Baggage::from([KeyValueMetadata::new(key, value.to_owned(), properties)])
}

// BAGG-01, BAGG-03, BAGG-04: members, space around each part, the first `=` separates, values are decoded.
#[test]
fn reads_members() {
    for (header, expected) in [
        ("k=v", vec![("k", "v", "")]),
        ("k=", vec![("k", "", "")]),
        ("a=1,b=2", vec![("a", "1", ""), ("b", "2", "")]),
        (" \ta \t= \t1\t , b = 2 ", vec![("a", "1", ""), ("b", "2", "")]),
        (",,a=1,, ,", vec![("a", "1", "")]),
        ("k=a=b==", vec![("k", "a=b==", "")]),
        ("k=a+b", vec![("k", "a+b", "")]),
        ("k=a%20b", vec![("k", "a b", "")]),
        ("k=%20a%20", vec![("k", " a ", "")]),
        ("k=a%2520b", vec![("k", "a%20b", "")]),
        ("k=%C3%A9", vec![("k", "é", "")]),
        ("k=a%FFb", vec![("k", "a\u{fffd}b", "")]),
        ("k=%2C%3B%22%5C%0D%0A", vec![("k", ",;\"\\\r\n", "")]),
        ("k=100%", vec![("k", "100%", "")]),
        ("!#$%&'*+-.^_`|~09azAZ=1", vec![("!#$%&'*+-.^_`|~09azAZ", "1", "")]),
    ] {
        assert_eq!(entries(&parse(header)), expected, "{header:?}");
    }
}

// BAGG-01: a malformed member is skipped, the others stay.
#[test]
fn skips_malformed_members() {
    for member in [
        "",
        " ",
        "novalue",
        "=v",
        " = v",
        "a b=v",
        "k\u{e9}=v",
        "(k)=v",
        "k:=v",
        "\"k\"=v",
        "k=a b",
        "k=\"v\"",
        "k=a\\b",
        "k=é",
        "k=a\tb",
        "k=a\rb",
        "k=a\0",
        ";p=1",
        "novalue;p=1",
    ] {
        assert_eq!(entries(&parse(member)), [], "{member:?}");
        assert_eq!(entries(&parse(&format!("a=1,{member},z=2"))), [("a", "1", ""), ("z", "2", "")], "{member:?}");
    }
}

// BAGG-05: keys are case-sensitive, taken as they are, and the last one wins.
#[test]
fn keeps_the_last_of_a_repeated_key() {
    let expected = [("K", "2", ""), ("k", "3", "p"), ("k%20", "4", "")];
    assert_eq!(entries(&parse("k=1;q,K=2,k=3;p,k%20=4")), expected);
}

// BAGG-06: properties are kept as text; those that break the grammar are dropped before they are stored.
#[test]
fn keeps_properties_opaque() {
    for (header, properties) in [
        ("k=v;p", "p"),
        ("k=v;p=1;q=2", "p=1;q=2"),
        ("k=v ; p = 1 ;\tq ", "p=1;q"),
        ("k=v;p=%2Cevil%3D1", "p=%2Cevil%3D1"),
        ("k=v;p=%0D%0A", "p=%0D%0A"),
        ("k=v;p=a=b", "p=a=b"),
        ("k=v;;p;", "p"),
        ("k=v;a b;p=c d;=1;q=\"x\";good=1", "good=1"),
        ("k=v;p=\r\nx: y", ""),
        ("k=v;é", ""),
    ] {
        let baggage = parse(header);
        assert_eq!(entries(&baggage), [("k", "v", properties)], "{header:?}");
        let written = format(&baggage).unwrap();
        assert_eq!(entries(&parse(&written)), [("k", "v", properties)], "{written:?}");
    }
}

// BAGG-06, BAGG-16: a property set in code cannot become a member or a line break.
#[test]
fn writes_no_property_that_breaks_the_grammar() {
    for (properties, text) in [
        ("p=1;q", "k=v;p=1;q"),
        ("p,evil=1", "k=v"),
        ("p\r\nevil: 1", "k=v"),
        ("p=a,b;good", "k=v;good"),
        (";;", "k=v"),
        ("pé", "k=v"),
    ] {
        assert_eq!(format(&of("k", "v", properties)).as_deref(), Some(text), "{properties:?}");
    }
}

// BAGG-02, BAGG-16: what is no value octet is encoded, and so is `%`; the value arrives as it was.
#[test]
fn writes_values_that_arrive_unchanged() {
    for (value, text) in [
        ("", "k="),
        ("a b", "k=a%20b"),
        (" a ", "k=%20a%20"),
        ("a%20b", "k=a%2520b"),
        ("50 %", "k=50%20%25"),
        ("a=b+c/d:e", "k=a=b%2Bc/d:e"),
        ("a,b;c\"d\\e", "k=a%2Cb%3Bc%22d%5Ce"),
        ("é\u{7f}\r\n\0", "k=%C3%A9%7F%0D%0A%00"),
    ] {
        let written = format(&of("k", value, ""));
        assert_eq!(written.as_deref(), Some(text), "{value:?}");
        assert_eq!(entries(&parse(text)), [("k", value, "")], "{text:?}");
    }
}

// BAGG-08: the order is that of the keys; nothing gives no header.
#[test]
fn writes_members_in_the_order_of_keys() {
    let baggage = parse("b=2,a=1,C=3,aa=4");
    assert_eq!(format(&baggage).as_deref(), Some("C=3,a=1,aa=4,b=2"));
    assert_eq!(format(&Baggage::new()), None);
}

// BAGG-07: 64 members and 8192 bytes are written whole.
#[test]
fn writes_all_up_to_the_limits() {
    let baggage: Baggage = (0..64).map(|n| KeyValue::new(format!("k{n:02}"), "x".repeat(123))).collect();
    let text = format(&baggage).unwrap();
    assert_eq!((text.len(), text.split(',').count()), (64 * 127 + 63, 64));
    assert_eq!(entries(&parse(&text)), entries(&baggage));

    let value = "x".repeat(8190);
    let text = format(&of("k", &value, "")).unwrap();
    assert_eq!(text.len(), 8192);
    assert_eq!(entries(&parse(&text)), [("k", value.as_str(), "")]);
}

// BAGG-08, BAGG-16: over the limit whole members are dropped and counted; the ones that still fit are written.
#[test]
fn drops_whole_members_over_the_limit() {
    let before = dropped_members();
    let baggage =
        Baggage::from([KeyValue::new("a", "1"), KeyValue::new("big", " ".repeat(2_800)), KeyValue::new("z", "2")]);
    assert_eq!(format(&baggage).as_deref(), Some("a=1,z=2"));
    assert!(dropped_members() > before);

    let many: Baggage = (0..60).map(|n| KeyValue::new(format!("k{n:02}"), "é".repeat(60))).collect();
    let text = format(&many).unwrap();
    assert!(text.len() <= 8192 && text.starts_with("k00=%C3") && text.ends_with("%A9"), "{}", text.len());
    assert_eq!(text.split(',').count(), 8192 / (4 + 360 + 1));
    assert!(parse(&text).iter().all(|(_, (value, _))| value.as_str() == "é".repeat(60)));
    assert_eq!(format(&of("k", &" ".repeat(2_800), "")), None);
}

// BAGG-09: over 8192 bytes in all headers together the baggage is ignored.
#[test]
fn ignores_baggage_over_8192_bytes() {
    let half = |key: char| format!("{key}={}", "x".repeat(4_094));
    let (a, b) = (half('a'), half('b'));
    assert_eq!(parse_all(&[&a, &b]).len(), 2);
    assert_eq!(parse_all(&[&a, &b, "c"]).len(), 0);
    assert_eq!(parse(&format!("k={}", "x".repeat(8_190))).len(), 1);
    assert_eq!(parse(&format!("k={}", "x".repeat(8_191))).len(), 0);
}

// BAGG-09: of more than 64 members the first 64 are kept.
#[test]
fn keeps_the_first_64_members() {
    let list = |range: std::ops::Range<usize>| range.map(|n| format!("k{n:02}=v")).collect::<Vec<_>>().join(",");
    let before = dropped_members();
    let baggage = parse_all(&[&list(0..40), "malformed", &list(40..70), "k00=late"]);
    assert!(dropped_members() >= before + 7);
    assert_eq!(baggage.get("k00").unwrap().as_str(), "v");
    let keys: Vec<_> = entries(&baggage).into_iter().map(|(key, ..)| key.to_owned()).collect();
    assert_eq!(keys, (0..64).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
}

// BAGG-17: the API's own limits refuse nothing that ours allow, also when keys are replaced.
#[test]
fn stores_all_that_the_limits_allow() {
    let full = format!("k=1,k={},l={}", "x".repeat(4_000), "y".repeat(4_000));
    let baggage = parse(&full);
    assert_eq!(baggage.get("k").unwrap().as_str().len(), 4_000);
    assert_eq!(baggage.get("l").unwrap().as_str().len(), 4_000);

    let replaced = format!("k={},k={},l={}", "x".repeat(4_000), "z", "y".repeat(4_000));
    let baggage = parse(&replaced);
    assert_eq!(baggage.get("k").unwrap().as_str(), "z");
    assert_eq!(baggage.get("l").unwrap().as_str().len(), 4_000);
}

// BAGG-10, TRAP-15: what says nothing leaves the baggage of the context as it was; what says something replaces it.
#[test]
fn leaves_existing_baggage_when_the_header_says_nothing() {
    let given = Context::new().with_baggage([KeyValue::new("kept", "1")]);
    let extract = |headers: &Headers| PROPAGATOR.extract_with_context(&given, headers);
    let oversize = "x".repeat(9_000);
    for value in ["", " ", ",,", "garbage", "a b=c", "=", ";p", "with_batch=True", &oversize] {
        let cx = extract(&headers([("baggage", value)]));
        assert_eq!(entries(cx.baggage()), [("kept", "1", "")], "{value:?}");
    }
    assert_eq!(entries(extract(&Headers::new()).baggage()), [("kept", "1", "")]);
    let cx = extract(&headers([("baggage", "new=2,garbage")]));
    assert_eq!(entries(cx.baggage()), [("new", "2", "")]);
}

// PROP-12, BAGG-05: several headers are one list.
#[test]
fn joins_several_headers() {
    let cx = read(&PROPAGATOR, [("baggage", "a=1,b=2"), ("baggage", "b=3"), ("baggage", "c=4")]);
    assert_eq!(entries(cx.baggage()), [("a", "1", ""), ("b", "3", ""), ("c", "4", "")]);
}

// PROP-02, BAGG-10: written in lower case, and only when there is something to write.
#[test]
fn injects_only_what_is_there() {
    assert_eq!(write(&PROPAGATOR, &Context::new()), []);
    let cx = Context::new().with_baggage([KeyValue::new("k", "v 1")]);
    assert_eq!(write(&PROPAGATOR, &cx), pairs([("baggage", "k=v%201")]));
}

/// Section 6 of the checklist: FastStream's marker of a batch is neither read nor written; other entries of the name
/// are.
#[test]
fn passes_over_the_marker_of_faststream() {
    assert_eq!(entries(&parse("with_batch=True,k=v")), [("k", "v", "")]);
    assert_eq!(entries(&parse("with_batch=True;p")), []);
    assert_eq!(entries(&parse("with_batch=no")), [("with_batch", "no", "")]);
    let cx = Context::new().with_baggage([KeyValue::new("with_batch", "True")]);
    let mut headers = Headers::new();
    PROPAGATOR.inject_context(&cx, &mut headers);
    assert!(headers.is_empty());
}

// BAGG-08, BAGG-14: drops are logged, content never is.
#[test]
fn logs_no_content() {
    let text = logged(|| {
        let members: Vec<_> = (0..70).map(|n| format!("secret{n}=hidden")).collect();
        let _ = parse(&members.join(","));
        let _ = parse(&format!("secret={}", "hidden".repeat(2_000)));
        let _ = parse("secret hidden=hidden;secret\r\n");
        let _ = format(&of("secret", &"hidden,".repeat(1_100), "hidden,secret"));
        let cx = Context::new().with_baggage([KeyValueMetadata::new(
            "secret",
            "hidden".to_owned(),
            BaggageMetadata::from("secret"),
        )]);
        let _ = write(&PROPAGATOR, &cx);
    });
    assert!(text.contains("members=6") && text.contains("bytes=12007"), "{text}");
    assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
}

//! The hand-written sets.

use super::set::{HeaderSet, HostileClass as Class, MARKER};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "b7ad6b7169203331";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const MEGABYTE: usize = 1_000_000;
/// Fits into a NATS message with the body and what the framework adds.
const FITS: usize = 900_000;

pub(super) fn sets() -> Vec<HeaderSet> {
    let mut sets = vec![HeaderSet::new(Class::WellFormed), continuing(Class::WellFormed)];
    // In one header: a broker may keep one of several.
    let entries = continuing(Class::WellFormed).with("baggage", "tenant=acme,other=1");
    sets.push(entries.keeping("tenant", "acme").keeping("other", "1"));
    sets.extend(traceparents());
    sets.extend(tracestates());
    sets.extend(baggage());
    sets.extend(large_baggage());
    sets.extend(line_breaks());
    sets.extend(bytes());
    sets.extend(spellings());
    sets.extend(names());
    sets.extend(sizes());
    sets.extend(formats());
    sets.extend(reserved());
    sets
}

fn continuing(class: Class) -> HeaderSet {
    HeaderSet::new(class).with_parent(TRACE, SPAN)
}

fn traceparents() -> Vec<HeaderSet> {
    let tail = format!("-{MARKER}");
    let malformed = [
        String::new(),
        " ".into(),
        MARKER.into(),
        "00-1-1-01".into(),
        "+0-+1-+1-+1".into(),
        PARENT.to_uppercase(),
        format!("{PARENT}-"),
        format!("{PARENT}{tail}"),
        format!("{PARENT},{PARENT}"),
        format!("\"{PARENT}\""),
        PARENT.replace("00-", "ff-"),
        PARENT.replace("00-", "0-"),
        PARENT.replace("-01", "-1"),
        PARENT.replace("-01", "-0g"),
        PARENT.replace(TRACE, &"0".repeat(32)),
        PARENT.replace(SPAN, &"0".repeat(16)),
        PARENT.replace('-', "\u{2010}"),
        PARENT.replace('a', "\u{ff41}"),
        format!("01{}.x", &PARENT[2..]),
    ];
    let malformed = malformed.map(|text| HeaderSet::new(Class::TraceparentMalformed).with("traceparent", text));
    let versions = [format!("01{}", &PARENT[2..]), format!("cc{}{tail}", &PARENT[2..]), format!("fe{}-", &PARENT[2..])];
    let versions =
        versions.map(|text| HeaderSet::new(Class::TraceparentVersion).with("traceparent", text).continuing(TRACE));
    malformed.into_iter().chain(versions).collect()
}

fn tracestates() -> Vec<HeaderSet> {
    let malformed = [
        "a",
        "=1",
        "a=",
        "A=1",
        "a=1,a=2",
        "a =1",
        "a=b=c",
        "a=1;b=2",
        "a=1\u{e9}",
        "a=1\tb",
        ",,,",
        "a=1,%0d%0aevil: 1",
    ];
    let malformed = malformed.map(|text| continuing(Class::TracestateMalformed).with("tracestate", text));
    let without = HeaderSet::new(Class::TracestateMalformed).with("tracestate", format!("a={MARKER}"));
    let (key, value) = ("z".repeat(257), "v".repeat(257));
    let many: Vec<_> = (0..100).map(|n| format!("k{n}={MARKER}")).collect();
    let large = [format!("{key}=1"), format!("a={value}"), many.join(","), ",".repeat(5_000)];
    let large = large.map(|text| continuing(Class::TracestateLarge).with("tracestate", text));
    malformed.into_iter().chain([without]).chain(large).collect()
}

const MALFORMED_BAGGAGE: [&str; 19] = [
    "",
    ",",
    "=",
    "=v",
    ";",
    ";p",
    "novalue",
    "a b=1",
    "k=a b",
    "k=\"v\"",
    "k=a\\b",
    "\u{e9}=1",
    "k=\u{e9}",
    "k\t=\t1",
    "(k)=1",
    "k:=1",
    "{\"k\":1}",
    "k=<script>,",
    "k='; drop table",
];

const PERCENT_BAGGAGE: [&str; 25] = [
    "k=%",
    "k=%2",
    "k=%zz",
    "k=%2C",
    "k=%0d%0a",
    "k=%00",
    "k=%C0%AF",
    "k=%E0%80%AF",
    "k=%F8%88%80%80%80",
    "k=%ED%A0%80",
    "k=%FF%FE",
    "k=%C3",
    "k=%25%32%43",
    "k=%2525",
    "k=%+1",
    "k=%%41",
    "k=%u0041",
    "k=%0D%0Aevil:%201",
    "k=a%3Db",
    "k=%3Bp=1",
    "k=%22%5C",
    "k=%E2%80%AE",
    "k=%EF%BB%BF",
    "%6b=v",
    "k%3D1=2",
];

const SMUGGLING_BAGGAGE: [&str; 17] = [
    "k=v;p=%2Cevil%3D1",
    "k=v;p=%0D%0Aevil:1",
    "k=v;p,evil=1;",
    "k=v;p=\"a,evil=1\"",
    "k=a=b=c",
    "k==",
    "k=v;p=a=b",
    "k=v;;;=;",
    "k=v;evil",
    "k=%2Cevil=1",
    "k=v%2Cevil%3D1",
    "k=v%3Bp%3D1",
    "k=v; p = 1 ; q",
    "k=v;p=\u{e9}",
    "k=v;p=a b",
    "k=v;p=\\",
    "with_batch=True",
];

fn baggage() -> Vec<HeaderSet> {
    let with = |class, text: &str| continuing(class).with("baggage", text).with("baggage", "tenant=acme");
    let kept = |set: HeaderSet| set.keeping("tenant", "acme");
    let all = MALFORMED_BAGGAGE.map(|text| with(Class::BaggageMalformed, text)).into_iter();
    let all = all.chain(PERCENT_BAGGAGE.map(|text| with(Class::BaggagePercent, text)));
    all.chain(SMUGGLING_BAGGAGE.map(|text| with(Class::BaggageSmuggling, text))).map(kept).collect()
}

fn large_baggage() -> Vec<HeaderSet> {
    let entries = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let key = "k".repeat(4_000);
    [
        entries(64),
        entries(65),
        entries(1_000),
        format!("{key}=1"),
        format!("k={}", "v".repeat(8_190)),
        format!("k={}", "v".repeat(8_191)),
        format!("k={}", "%20".repeat(2_700)),
        // Grows threefold when it is written again.
        format!("k={}", "%".repeat(8_000)),
        format!("k={}", "%FF".repeat(2_700)),
        ",".repeat(8_192),
        ";".repeat(8_192),
        "=".repeat(8_192),
        format!("k=v;{}", "p;".repeat(4_000)),
        format!("{},{}", format_args!("k={}", "v".repeat(5_000)), format_args!("k={}", "w".repeat(3_000))),
    ]
    .map(|text| continuing(Class::BaggageLarge).with("baggage", text))
    .into()
}

fn line_breaks() -> Vec<HeaderSet> {
    let mut sets = Vec::new();
    for sign in ["\r\n", "\n", "\r", "\0", "\u{b}", "\u{2028}", "\r\n\r\n", "\r\n ", "\n\t"] {
        let traceparent = format!("{PARENT}{sign}evil: {MARKER}");
        let entry = format!("k=v{sign}evil: {MARKER}");
        sets.push(HeaderSet::new(Class::LineBreaks).with("traceparent", traceparent).with_either_trace());
        for set in [
            continuing(Class::LineBreaks).with("baggage", entry),
            continuing(Class::LineBreaks).with("baggage", format!("k=v{sign}baggage: evil=1")),
            continuing(Class::LineBreaks).with("tracestate", format!("a=1{sign}evil: 1")),
            continuing(Class::LineBreaks).with("x-note", format!("a{sign}b: c")),
        ] {
            // A line break on the wire may add a header of any name, also a second parent.
            sets.push(set.with_either_trace());
        }
    }
    sets
}

fn bytes() -> Vec<HeaderSet> {
    let bytes: [&[u8]; 7] = [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xfe\xff", b"\x80"];
    let mut sets = Vec::new();
    for wrong in bytes {
        let around = |text: &str| [text.as_bytes(), wrong].concat();
        sets.push(HeaderSet::new(Class::NotUtf8).with("traceparent", around(PARENT)));
        sets.push(continuing(Class::NotUtf8).with("baggage", around("k=v")));
        sets.push(continuing(Class::NotUtf8).with("tracestate", around("a=1")));
        sets.push(continuing(Class::NotUtf8).with("x-note", around(MARKER)));
        sets.push(continuing(Class::NotUtf8).with(around("x-note"), "1"));
    }
    sets
}

fn spellings() -> Vec<HeaderSet> {
    let other = format!("00-{OTHER}-{SPAN}-01");
    let mut sets = Vec::new();
    for name in ["Traceparent", "TRACEPARENT", "TraceParent", "tRaCePaReNt"] {
        let exact = HeaderSet::new(Class::Spellings).with("traceparent", PARENT).continuing(TRACE);
        sets.push(exact.with(name, other.clone()));
        sets.push(HeaderSet::new(Class::Spellings).with(name, PARENT).continuing(TRACE));
        sets.push(HeaderSet::new(Class::Spellings).with(name, PARENT).with("trace-parent", &*other).continuing(TRACE));
    }
    let twice = HeaderSet::new(Class::Spellings).with("traceparent", PARENT).with("traceparent", other);
    sets.push(twice.with_either_trace());
    let lists =
        continuing(Class::Spellings).with("tracestate", "a=1").with("tracestate", "a=2").with("TraceState", "b=1");
    sets.push(
        lists
            .with("baggage", "k=1")
            .with("Baggage", "k=2")
            .with("BAGGAGE", "l=3")
            .with("baggage", "k=4")
            .keeping("k", "4"),
    );
    sets.push(
        continuing(Class::Spellings).with("Baggage", "k=1").with("Baggage", "l=2").keeping("k", "1").keeping("l", "2"),
    );
    sets
}

fn names() -> Vec<HeaderSet> {
    let long = "x".repeat(10_000);
    let names = [
        "",
        " ",
        "traceparent ",
        " traceparent",
        "trace parent",
        "traceparent\t",
        "a:b",
        ":",
        "a\r\nb",
        "a\0b",
        "größe",
        "\u{202e}",
        "baggage\u{0}",
        "__proto__",
        "..",
        "x-",
        "\u{7f}",
        &long,
    ];
    names.map(|name| continuing(Class::Names).with(name, MARKER)).into()
}

fn sizes() -> Vec<HeaderSet> {
    let mut sets = Vec::new();
    for size in [FITS, MEGABYTE] {
        let long = "v".repeat(size);
        sets.push(HeaderSet::new(Class::LargeValues).with("traceparent", format!("{PARENT}-{long}")));
        sets.push(
            HeaderSet::new(Class::LargeValues)
                .with("traceparent", format!("cc{}-{long}", &PARENT[2..]))
                .continuing(TRACE),
        );
        sets.push(continuing(Class::LargeValues).with("tracestate", format!("a={long}")));
        sets.push(continuing(Class::LargeValues).with("baggage", format!("k={long}")));
        sets.push(continuing(Class::LargeValues).with("baggage", "k=v,".repeat(size / 4)));
        sets.push(continuing(Class::LargeValues).with("x-note", long.clone()));
        sets.push(continuing(Class::LargeValues).with("x".repeat(size), "1"));
    }
    for name in ["x-note", "traceparent", "tracestate", "baggage"] {
        let mut set = HeaderSet::new(Class::ManyHeaders).with_either_trace();
        for n in 0..1_000 {
            set = match name {
                "traceparent" => set.with(name, PARENT),
                "tracestate" => set.with(name, format!("k{n}=1")),
                "baggage" => set.with(name, format!("k{n}={MARKER}")),
                _ => set.with(format!("{name}-{n}"), "1"),
            };
        }
        sets.push(set);
    }
    sets
}

fn formats() -> Vec<HeaderSet> {
    let b3 = |flag: &str| format!("{OTHER}-{SPAN}-{flag}");
    let jaeger = format!("{OTHER}:{SPAN}:0:1");
    vec![
        continuing(Class::Formats).with("b3", b3("1")).with_either_trace(),
        continuing(Class::Formats).with("b3", "0").with("x-b3-sampled", "0"),
        continuing(Class::Formats).with("b3", MARKER).with("uber-trace-id", MARKER),
        continuing(Class::Formats).with("uber-trace-id", jaeger.clone()).with_either_trace(),
        HeaderSet::new(Class::Formats).with("traceparent", MARKER).with("b3", b3("d")).with_either_trace(),
        HeaderSet::new(Class::Formats).with("x-b3-traceid", OTHER).with("x-b3-spanid", MARKER).with_either_trace(),
        HeaderSet::new(Class::Formats).with("uber-trace-id", jaeger.replace(':', "%3A")).with_either_trace(),
        continuing(Class::Formats).with("baggage", "k=1").with("uberctx-k", "2").with("uberctx-l", "%2Cevil%3D1"),
        continuing(Class::Formats).with("uberctx-", "1").with("uberctx-a b", "1").with("Uberctx-K", "%0d%0a"),
        continuing(Class::Formats).with("uberctx-big", "v".repeat(9_000)),
        continuing(Class::Formats).with("ce_traceparent", format!("00-{OTHER}-{SPAN}-01")),
        continuing(Class::Formats).with("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793"),
    ]
}

fn reserved() -> Vec<HeaderSet> {
    let names = [
        "Nats-Expected-Stream",
        "Nats-Expected-Last-Sequence",
        "Nats-Expected-Last-Msg-Id",
        "nats-rollup",
        "NATS-TTL",
        "Nats-Stream",
        "Nats-Sequence",
        "Nats-Subject",
        "Nats-Last-Consumer",
        "Nats-Pending-Messages",
        "Nats-Service-Error",
        "content-type",
        "Content-Type",
        "correlation-id",
        "correlation_id",
        "reply-to",
        "message-id",
        "Status",
        "Description",
        "dead-letter-reason",
        "dead-letter-error",
        "dead-letter-origin",
        "x-death",
        "x-delay",
        "kafka_topic",
        "host",
    ];
    names.map(|name| continuing(Class::Reserved).with(name, MARKER)).into()
}

//! The sets made from a seed.

use super::random::Random;
use super::set::{HeaderSet, HostileClass as Class};

/// What values of the grammar are made of.
const SAFE: &str = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$&'()*+-./:<=>?@[]^_`{|}~";

/// Returns `count` sets, the classes in turn.
pub(super) fn sets(seed: u64, count: usize) -> Vec<HeaderSet> {
    let mut random = Random::new(seed);
    Class::ALL.iter().cycle().take(count).map(|class| set(*class, &mut random)).collect()
}

fn set(class: Class, random: &mut Random) -> HeaderSet {
    match class {
        Class::WellFormed => well_formed(random),
        Class::TraceparentMalformed => traceparent_malformed(random),
        Class::TraceparentVersion => traceparent_version(random),
        Class::TracestateMalformed => tracestate_malformed(random),
        Class::TracestateLarge => tracestate_large(random),
        Class::BaggageMalformed => baggage_malformed(random),
        Class::BaggagePercent => baggage_percent(random),
        Class::BaggageSmuggling => baggage_smuggling(random),
        Class::BaggageLarge => baggage_large(random),
        Class::LineBreaks => line_breaks(random),
        Class::NotUtf8 => not_utf8(random),
        Class::Spellings => spellings(random),
        Class::Names => names(random),
        Class::LargeValues => large_values(random),
        Class::ManyHeaders => many_headers(random),
        Class::Formats => formats(random),
        Class::Reserved => reserved(random),
        Class::Arbitrary => arbitrary(random),
    }
}

fn traced(class: Class, random: &mut Random) -> HeaderSet {
    let (trace, span) = (random.hex(32), random.hex(16));
    HeaderSet::new(class).with_parent(&trace, &span)
}

fn parent(random: &mut Random) -> String {
    format!("00-{}-{}-0{}", random.hex(32), random.hex(16), random.below(2))
}

/// Adds a `baggage` header of good entries, which must arrive.
fn with_entries(mut set: HeaderSet, random: &mut Random) -> HeaderSet {
    let mut members = Vec::new();
    for _ in 0..=random.below(4) {
        let (key, value) = (random.word(), random.text(SAFE, 0, 20));
        members.push(format!("{key}={value}"));
        set = set.keeping(key, value);
    }
    set.with("baggage", members.join(","))
}

fn well_formed(random: &mut Random) -> HeaderSet {
    let set = traced(Class::WellFormed, random);
    let set = with_entries(set, random);
    let state: Vec<_> = (0..random.below(6)).map(|n| format!("k{n}={}", random.word())).collect();
    if state.is_empty() { set } else { set.with("tracestate", state.join(", ")) }
}

fn traceparent_malformed(random: &mut Random) -> HeaderSet {
    let good = parent(random);
    let cut = random.below(good.len() as u32) as usize;
    let bad = match random.below(8) {
        0 => good[..cut].to_owned(),
        1 => format!("{good}{}", random.text(SAFE, 1, 20)),
        2 => {
            let sign = random.pick(&["g", "A", "+", " ", "\u{e9}", "_"]);
            // Behind the dash: a digit stands there.
            format!("{}{sign}{}", &good[..3], &good[4..])
        }
        3 => good.replace('-', random.pick(&["", "--", "_", " - "])),
        4 => format!("00-{}-{}-01", "0".repeat(32), random.hex(16)),
        5 => format!("00-{}-{}-01", random.hex(32), "0".repeat(16)),
        6 => format!("ff{}", &good[2..]),
        _ => random.text(SAFE, 0, 80),
    };
    let set = HeaderSet::new(Class::TraceparentMalformed).with("traceparent", bad);
    with_entries(set, random)
}

fn traceparent_version(random: &mut Random) -> HeaderSet {
    let (trace, span, version) = (random.hex(32), random.hex(16), 1 + random.below(254));
    let tail = if random.chance(2) { format!("-{}", random.text(SAFE, 0, 200)) } else { String::new() };
    let text = format!("{version:02x}-{trace}-{span}-{:02x}{tail}", random.below(256));
    HeaderSet::new(Class::TraceparentVersion).with("traceparent", text).continuing(&trace)
}

fn tracestate_malformed(random: &mut Random) -> HeaderSet {
    let pieces = ["a", "=", ",", " ", "A", "\t", "é", "k=1,", "b@c=", "@", ";", "%0d%0a", "\u{7f}", "z=2", "\"", "=="];
    let set = traced(Class::TracestateMalformed, random);
    let text = random.pieces(&pieces, 12);
    let set = set.with("tracestate", text);
    if random.chance(3) { set.with("tracestate", random.pieces(&pieces, 6)) } else { set }
}

fn tracestate_large(random: &mut Random) -> HeaderSet {
    let set = traced(Class::TracestateLarge, random);
    let members: Vec<_> = (0..20 + random.below(60))
        .map(|n| {
            let key = random.text("abcdefgh0123456789_-*/", 1, 20);
            format!("a{n}{key}={}", random.text("abcXYZ019 !~", 0, 250) + "x")
        })
        .collect();
    let half = members.len() / 2;
    set.with("tracestate", members[..half].join(",")).with("tracestate", members[half..].join(","))
}

fn baggage_malformed(random: &mut Random) -> HeaderSet {
    let pieces = [
        "k", "=", ",", ";", " ", "\t", "\"", "\\", "é", "k=v,", "(", ")", ":", "=v", "\u{7f}", "a=1;p", "🦀", "<", "{",
    ];
    let set = traced(Class::BaggageMalformed, random);
    let text = random.pieces(&pieces, 20);
    let set = set.with("baggage", text);
    with_entries(set, random)
}

fn baggage_percent(random: &mut Random) -> HeaderSet {
    let pieces = [
        "%",
        "%2",
        "%zz",
        "%2C",
        "%3D",
        "%3B",
        "%0d%0a",
        "%00",
        "%C0%AF",
        "%FF",
        "%E2%82",
        "%AC",
        "%25",
        "%u0041",
        "%+1",
        "a",
        "+",
        "%22",
        "%5C",
        "%20",
        "%7f",
        "%c3%a9",
        "%F0%9F%A6%80",
        "%ED%A0%80",
    ];
    let mut set = traced(Class::BaggagePercent, random);
    let members: Vec<_> =
        (0..=random.below(5)).map(|_| format!("{}={}", random.word(), random.pieces(&pieces, 12))).collect();
    set = set.with("baggage", members.join(","));
    with_entries(set, random)
}

fn baggage_smuggling(random: &mut Random) -> HeaderSet {
    let pieces = [
        ";p=%2C",
        "%2C",
        "evil%3D1",
        "evil=1",
        ";",
        "=",
        ";evil",
        "%3B",
        ";p=\"",
        "\"",
        ";p=%0d%0a",
        ";a=b=c",
        ";\u{e9}",
        "==",
        ";p;q;r",
        "; p = 1 ",
        "%3D",
        ";;",
    ];
    let set = traced(Class::BaggageSmuggling, random);
    let text = format!("{}=v{}", random.word(), random.pieces(&pieces, 8));
    let set = set.with("baggage", text);
    with_entries(set, random)
}

fn baggage_large(random: &mut Random) -> HeaderSet {
    let mut set = traced(Class::BaggageLarge, random);
    for _ in 0..=random.below(3) {
        let (count, most) = (1 + random.below(120), 1 + random.below(200));
        let members: Vec<_> =
            (0..count).map(|_| format!("{}={}", random.word(), random.text("ab%20", 0, most))).collect();
        set = set.with("baggage", members.join(","));
    }
    set
}

fn line_breaks(random: &mut Random) -> HeaderSet {
    let set = traced(Class::LineBreaks, random).with_either_trace();
    let piece = random.pick(&[
        "\r\n",
        "\n",
        "\r",
        "\0",
        "\r\n ",
        "\n\n",
        "\u{85}",
        "\u{2029}",
        "\r\nbaggage: evil=1",
        "\nX: y",
    ]);
    let name = random.pick(&["traceparent", "tracestate", "baggage", "x-note"]);
    let text = match name {
        "traceparent" => parent(random),
        "tracestate" => format!("a={}", random.word()),
        _ => format!("{}=v", random.word()),
    };
    let value = random.insert(text.as_bytes(), piece.as_bytes());
    set.with(name, value)
}

fn not_utf8(random: &mut Random) -> HeaderSet {
    let piece =
        random.pick(&[&b"\xff"[..], b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x82"]);
    match random.below(4) {
        0 => {
            let good = parent(random);
            let value = random.insert(good.as_bytes(), piece);
            HeaderSet::new(Class::NotUtf8).with("traceparent", value)
        }
        1 => {
            let value = random.insert(b"a=1,b=2", piece);
            traced(Class::NotUtf8, random).with("tracestate", value)
        }
        2 => {
            let good = format!("{}=v", random.word());
            let value = random.insert(good.as_bytes(), piece);
            traced(Class::NotUtf8, random).with("baggage", value)
        }
        _ => {
            let value = random.insert(b"note", piece);
            traced(Class::NotUtf8, random).with("x-note", value)
        }
    }
}

fn spellings(random: &mut Random) -> HeaderSet {
    let mut set = HeaderSet::new(Class::Spellings).with_either_trace();
    for _ in 0..2 + random.below(6) {
        let (name, value) = match random.below(3) {
            0 => ("traceparent", parent(random)),
            1 => ("tracestate", format!("a{}={}", random.below(4), random.below(9))),
            _ => ("baggage", format!("k{}={}", random.below(4), random.word())),
        };
        let name = if random.chance(3) { name.to_owned() } else { random.spelling(name) };
        set = set.with(name, value);
    }
    set
}

fn names(random: &mut Random) -> HeaderSet {
    let pieces = [
        "x",
        "-",
        " ",
        ":",
        "\t",
        "\r\n",
        "\0",
        "é",
        "baggage",
        "traceparent",
        ".",
        "\u{7f}",
        "\u{200b}",
        "=",
        "(",
        "🦀",
    ];
    let set = traced(Class::Names, random).with_either_trace();
    let (name, value) = (random.pieces(&pieces, 4), random.word());
    set.with(name, value)
}

/// The really large ones are written by hand: 10,000 sets are to fit into memory.
fn large_values(random: &mut Random) -> HeaderSet {
    let size = 1_000 + random.below(30_000) as usize;
    let set = traced(Class::LargeValues, random);
    match random.below(4) {
        0 => set.with("tracestate", format!("a={}", "v".repeat(size))),
        1 => set.with("baggage", format!("{}={}", random.word(), "v".repeat(size))),
        2 => set.with("baggage", ",".repeat(size)),
        _ => set.with("x-note", "v".repeat(size)),
    }
}

fn many_headers(random: &mut Random) -> HeaderSet {
    let mut set = traced(Class::ManyHeaders, random);
    for n in 0..50 + random.below(200) {
        set = match random.below(4) {
            0 => set.with("tracestate", format!("k{n}=1")),
            1 => set.with("baggage", format!("k{n}={}", random.below(9))),
            _ => set.with(format!("x-note-{n}"), "1"),
        };
    }
    set
}

fn formats(random: &mut Random) -> HeaderSet {
    let mut set = HeaderSet::new(Class::Formats).with_either_trace();
    if random.chance(2) {
        set = set.with("traceparent", parent(random));
    }
    let (trace, span, flag) = (random.hex(32), random.hex(16), random.pick(&["0", "1", "d", "2", ""]));
    set = match random.below(3) {
        0 => set.with("b3", format!("{trace}-{span}-{flag}")),
        1 => set.with("X-B3-TraceId", trace).with("X-B3-SpanId", span).with("X-B3-Sampled", flag),
        _ => set.with("uber-trace-id", format!("{trace}:{span}:0:{flag}")),
    };
    let (key, value) = (random.word(), random.pieces(&["%2C", "evil=1", ",", "a", "%0d%0a", "%", ";"], 6));
    set.with(format!("uberctx-{key}"), value.clone()).with("baggage", format!("{key}={value}"))
}

fn reserved(random: &mut Random) -> HeaderSet {
    let set = traced(Class::Reserved, random);
    let names = [
        "Nats-Stream",
        "nats-x",
        "content-type",
        "dead-letter-reason",
        "correlation-id",
        "x-death",
        "reply-to",
        "Status",
    ];
    let (name, value) = (random.pick(&names), random.word());
    let name = if random.chance(2) { name.to_owned() } else { random.spelling(name) };
    let set = set.with(name, value);
    with_entries(set, random)
}

fn arbitrary(random: &mut Random) -> HeaderSet {
    let mut set = HeaderSet::new(Class::Arbitrary).with_either_trace();
    for _ in 0..1 + random.below(6) {
        let name = match random.below(4) {
            0 => random.bytes(12),
            _ => random.pick(&["traceparent", "tracestate", "baggage", "b3", "uber-trace-id"]).as_bytes().to_vec(),
        };
        set = set.with(name, random.bytes(120));
    }
    set
}

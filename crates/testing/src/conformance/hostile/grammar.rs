//! What may stand in the headers that go out, written from the specifications and not from the code under test.

/// Says what is wrong with a propagation header on its way out.
///
/// # Errors
///
/// Fails with the rule that is broken.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let wrong = |rule: &str| Err(format!("{name}: {rule}"));
    if !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return wrong("a byte that is not printable ASCII");
    }
    let holds = match name {
        "traceparent" => is_traceparent(value),
        "tracestate" => is_tracestate(value),
        "baggage" => is_baggage(value),
        "b3" => is_b3(value),
        "X-B3-TraceId" => is_id(value, 32),
        "X-B3-SpanId" => is_id(value, 16),
        "X-B3-Sampled" => matches!(value, "0" | "1"),
        "X-B3-Flags" => value == "1",
        "uber-trace-id" => is_uber_trace_id(value),
        _ => match name.strip_prefix("uberctx-") {
            Some(key) => is_token(key) && is_octets(value),
            None => return wrong("no propagation header"),
        },
    };
    if holds { Ok(()) } else { wrong("breaks the grammar") }
}

/// Tells whether a name is one of the known propagation headers, in any spelling.
pub fn is_propagation(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["traceparent", "tracestate", "baggage", "b3", "uber-trace-id"].contains(&name.as_str())
        || ["x-b3-", "uberctx-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Trace Context level 2, section 3.2, version 00, with the flags this project writes.
// PROP-15.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    version == "00" && is_id(trace, 32) && is_id(span, 16) && matches!(flags, "00" | "01" | "02" | "03")
}

fn is_id(text: &str, digits: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(is_digit) && text.bytes().any(|byte| byte != b'0')
}

/// Trace Context level 2, section 3.3: at most 32 members; keys are unique.
fn is_tracestate(text: &str) -> bool {
    let members: Vec<_> = text.split(',').map(|member| member.split_once('=')).collect();
    let unique = |key: &str| members.iter().flatten().filter(|(other, _)| *other == key).count() == 1;
    members.len() <= 32
        && members
            .iter()
            .all(|member| member.is_some_and(|(key, value)| is_state_key(key) && unique(key) && is_state_value(value)))
}

fn is_state_key(key: &str) -> bool {
    let starts = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= 256
        && key.bytes().next().is_some_and(starts)
        && key.bytes().all(|byte| starts(byte) || b"_-*/@".contains(&byte))
}

fn is_state_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && !value.ends_with(' ') && !value.contains(['=', ','])
}

/// W3C Baggage, section 3.3.1; at most 64 members and 8192 bytes, keys unique, no space, nothing unescaped.
fn is_baggage(text: &str) -> bool {
    let members: Vec<&str> = text.split(',').collect();
    let mut keys: Vec<&str> = members.iter().map(|member| member.split('=').next().unwrap_or_default()).collect();
    keys.sort_unstable();
    keys.dedup();
    text.len() <= 8192
        && members.len() <= 64
        && keys.len() == members.len()
        && members.iter().all(|member| is_member(member))
}

fn is_member(text: &str) -> bool {
    let mut parts = text.split(';');
    let entry = parts.next().and_then(|entry| entry.split_once('='));
    let is_property =
        |text: &str| text.split_once('=').map_or(is_token(text), |(key, value)| is_token(key) && is_octets(value));
    entry.is_some_and(|(key, value)| is_token(key) && is_octets(value) && is_escaped(value)) && parts.all(is_property)
}

/// Every percent sign of a value that was written begins an escape.
// BAGG-02.
fn is_escaped(value: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    value.split('%').skip(1).all(|after| after.get(..2).is_some_and(is_hex))
}

fn is_octets(text: &str) -> bool {
    text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && !b"\",;\\".contains(&byte))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The single header: both ids, and a decision where there is one.
fn is_b3(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        [trace, span] => is_id(trace, 32) && is_id(span, 16),
        [trace, span, flag] => is_id(trace, 32) && is_id(span, 16) && matches!(flag, "0" | "1" | "d"),
        _ => false,
    }
}

/// Jaeger's format as this project writes it: no parent, flags 0, 1 or 3.
// PROP-B-07.
fn is_uber_trace_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let [trace, span, parent, flags] = parts[..] else { return false };
    is_id(trace, 32) && is_id(span, 16) && parent == "0" && matches!(flags, "0" | "1" | "3")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_right_passes() {
        for (name, value) in [
            ("traceparent", PARENT),
            ("tracestate", "a=1,b@c=x y"),
            ("baggage", "k=a%20b=c;p;q=1,l="),
            ("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-d"),
            ("uber-trace-id", "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:3"),
            ("uberctx-k", "a%20b"),
        ] {
            assert_eq!(check(name, value), Ok(()));
        }
    }

    #[test]
    fn what_is_wrong_does_not() {
        let many: Vec<_> = (0..65).map(|n| format!("k{n}=v")).collect();
        for (name, value) in [
            ("traceparent", "00-1-1-01"),
            ("traceparent", &PARENT.replace("-01", "-04")),
            ("traceparent", &PARENT.replace("b7ad6b7169203331", "0000000000000000")),
            ("tracestate", "a=1,a=2"),
            ("tracestate", "A=1"),
            ("tracestate", "a=1,"),
            ("baggage", "k=a b"),
            ("baggage", "k=v,k=w"),
            ("baggage", "k=100%"),
            ("baggage", "k=%2"),
            ("baggage", "k=v,"),
            ("baggage", "k=v;"),
            ("baggage", "k=\r\n"),
            ("baggage", &many.join(",")),
            ("baggage", &format!("k={}", "v".repeat(8_191))),
            ("b3", "0"),
            ("uber-trace-id", "1:2:0:1"),
            ("x-note", "1"),
        ] {
            assert!(check(name, value).is_err(), "{name}: {value}");
        }
    }
}

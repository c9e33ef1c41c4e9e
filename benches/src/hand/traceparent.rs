//! `traceparent` and `tracestate`, strictly.

use std::borrow::Cow;
use std::str::{FromStr, from_utf8};

use bytes::Bytes;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::message::Headers;

/// The name of the header.
pub const NAME: &str = "traceparent";
const STATE: &str = "tracestate";
const LENGTH: usize = 55;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Returns the context that headers carry, if they carry a valid one.
#[must_use]
pub fn read(headers: &Headers) -> Option<SpanContext> {
    let context = parse(find(headers, NAME)?)?;
    let state = find(headers, STATE).and_then(|value| TraceState::from_str(from_utf8(value).ok()?).ok());
    Some(match state {
        None => context,
        Some(state) => SpanContext::new(context.trace_id(), context.span_id(), context.trace_flags(), true, state),
    })
}

/// Appends a context to headers that have none.
pub fn write(context: &SpanContext, headers: &mut Headers) {
    let Some(text) = text(context) else { return };
    headers.push((Cow::Borrowed(NAME), Bytes::from(text)));
    let state = context.trace_state();
    if *state != TraceState::NONE {
        headers.push((Cow::Borrowed(STATE), Bytes::from(state.header())));
    }
}

/// Returns the value of the header for a context, if that is valid.
#[must_use]
pub fn text(context: &SpanContext) -> Option<String> {
    if !context.is_valid() {
        return None;
    }
    let mut value = String::with_capacity(LENGTH);
    value.push_str("00-");
    push_hex(&mut value, &context.trace_id().to_bytes());
    value.push('-');
    push_hex(&mut value, &context.span_id().to_bytes());
    value.push_str(if context.is_sampled() { "-01" } else { "-00" });
    Some(value)
}

/// The last header of a name, in any spelling.
pub(super) fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    headers.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
}

/// Returns the context that the value of a header stands for, if it is valid.
#[must_use]
pub fn parse(value: &[u8]) -> Option<SpanContext> {
    let (value, rest) = value.split_at_checked(LENGTH)?;
    let dashes = value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
    let [version] = hex(&value[..2])?;
    // A later version may be longer, after one more dash.
    let ends = rest.is_empty() || (version != 0 && rest[0] == b'-');
    if !dashes || version == 0xff || !ends {
        return None;
    }
    let trace = TraceId::from_bytes(hex(&value[3..35])?);
    let span = SpanId::from_bytes(hex(&value[36..52])?);
    let [flags] = hex(&value[53..])?;
    let valid = trace != TraceId::INVALID && span != SpanId::INVALID;
    valid.then(|| SpanContext::new(trace, span, TraceFlags::new(flags & 1), true, TraceState::NONE))
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

fn push_hex(value: &mut String, bytes: &[u8]) {
    for byte in bytes {
        value.push(char::from(DIGITS[usize::from(byte >> 4)]));
        value.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> Headers {
        vec![("Traceparent".into(), Bytes::from_static(value.as_bytes()))]
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = read(&headers(value)).unwrap();
        assert!(context.is_remote() && context.is_sampled());
        let mut written = Headers::new();
        write(&context, &mut written);
        assert_eq!(find(&written, NAME).unwrap(), value.as_bytes());
    }

    #[test]
    fn what_is_not_valid_is_not_read() {
        for value in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(read(&headers(value)).is_none(), "{value}");
        }
    }
}

//! The `baggage` header, as far as a careful service needs it: values escaped, and no more than a limit is read.

use std::borrow::Cow;
use std::fmt::Write;
use std::str::from_utf8;

use bytes::Bytes;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::{Context, KeyValue};

use super::message::Headers;
use super::traceparent::find;

const NAME: &str = "baggage";
const MAX_BYTES: usize = 8192;
const MAX_ENTRIES: usize = 64;

/// Returns the context with the baggage that headers carry.
#[must_use]
pub fn read(headers: &Headers, context: Context) -> Context {
    let Some(text) =
        find(headers, NAME).filter(|value| value.len() <= MAX_BYTES).and_then(|value| from_utf8(value).ok())
    else {
        return context;
    };
    let entries = text.split(',').take(MAX_ENTRIES).filter_map(|entry| {
        let (key, value) = entry.split(';').next()?.split_once('=')?;
        Some(KeyValue::new(key.trim().to_owned(), decoded(value.trim())?))
    });
    context.with_baggage(entries)
}

/// Appends the baggage of a context to headers that have none.
pub fn write(context: &Context, headers: &mut Headers) {
    let baggage = context.baggage();
    if baggage.is_empty() {
        return;
    }
    let mut text = String::with_capacity(32 * baggage.len());
    for (key, (value, _)) in baggage.iter() {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(key.as_str());
        text.push('=');
        push_encoded(&mut text, value.as_str());
    }
    headers.push((Cow::Borrowed(NAME), Bytes::from(text)));
}

fn push_encoded(text: &mut String, value: &str) {
    if value.bytes().all(is_plain) {
        text.push_str(value);
        return;
    }
    for byte in value.bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\' | b'%')
}

fn decoded(value: &str) -> Option<String> {
    if !value.contains('%') {
        return Some(value.to_owned());
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| first == b'%').and_then(|digits| from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let context = Context::new().with_baggage([KeyValue::new("tenant", "ä, b;c%41"), KeyValue::new("plain", "1")]);
        let mut headers = Headers::new();
        write(&context, &mut headers);
        let read = read(&headers, Context::new());
        assert_eq!(read.baggage().get("tenant").map(ToString::to_string), Some("ä, b;c%41".to_owned()));
        assert_eq!(read.baggage().len(), 2);
    }
}

//! What a stranger sent, read as generously as can be: the code under test may understand less of it, never more.

use std::collections::HashSet;

use super::set::HeaderSet;

/// One entry of baggage, decoded, with the text of its properties.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) properties: Vec<String>,
}

/// What can be found in a set of headers.
pub(super) struct Sent {
    entries: Vec<Entry>,
    members: HashSet<String>,
    values: Vec<String>,
}

impl Sent {
    pub(super) fn new(set: &HeaderSet) -> Self {
        let headers = readings(set);
        let of = |name: &str| {
            headers
                .iter()
                .filter(|(own, _)| own.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
                .collect::<Vec<_>>()
        };
        let mut entries: Vec<Entry> =
            of("baggage").iter().flat_map(|value| value.split(',')).filter_map(entry).collect();
        entries.extend(headers.iter().filter_map(|(name, value)| {
            let key = name.get(..8).filter(|prefix| prefix.eq_ignore_ascii_case("uberctx-")).and(name.get(8..))?;
            Some(Entry { key: key.to_owned(), value: decode(value), properties: Vec::new() })
        }));
        let members =
            of("tracestate").iter().flat_map(|value| value.split(',')).map(|member| member.trim().to_owned()).collect();
        Self { entries, members, values: headers.iter().map(|(_, value)| value.to_ascii_lowercase()).collect() }
    }

    /// How many things in it look like an entry.
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether an entry that went out had come in, with each of its properties.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.entries.iter().any(|sent| {
            sent.key == entry.key
                && sent.value == entry.value
                && entry.properties.iter().all(|property| sent.properties.contains(property))
        })
    }

    pub(super) fn has_member(&self, member: &str) -> bool {
        self.members.contains(member)
    }

    /// Tells whether a trace id stands anywhere in what was sent, short ones padded.
    pub(super) fn has_trace(&self, id: &str) -> bool {
        let short = id.trim_start_matches('0');
        self.values.iter().any(|value| value.contains(short))
    }
}

/// Reads a `baggage` header that went out.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    text.split(',').filter_map(entry).collect()
}

/// The headers as names and text; what a line break may make of them on the wire counts too.
fn readings(set: &HeaderSet) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in &set.headers {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        headers.push((name.to_string(), value.to_string()));
        if !value.contains(['\r', '\n']) && !name.contains(['\r', '\n', ':']) {
            continue;
        }
        headers.push((name.to_string(), value.replace(['\r', '\n'], "")));
        let wire = format!("{name}: {value}");
        let lines = wire.split(['\r', '\n']).filter_map(|line| line.split_once(':'));
        headers.extend(lines.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    headers
}

fn entry(member: &str) -> Option<Entry> {
    let mut parts = member.split(';');
    let (key, value) = parts.next()?.split_once('=')?;
    Some(Entry { key: key.trim().to_owned(), value: decode(value.trim()), properties: parts.map(property).collect() })
}

/// A property without the spaces around its parts.
fn property(text: &str) -> String {
    match text.split_once('=') {
        Some((key, value)) => format!("{}={}", key.trim(), value.trim()),
        None => text.trim().to_owned(),
    }
}

/// Percent-decoding, byte by byte: a sign that begins no escape stays.
fn decode(text: &str) -> String {
    let digit = |index: usize| text.as_bytes().get(index).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut index) = (Vec::new(), 0);
    while let Some(byte) = text.as_bytes().get(index) {
        match (byte, digit(index + 1), digit(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                index += 3;
            }
            _ => {
                bytes.push(*byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::set::{HeaderSet, HostileClass};
    use super::*;

    fn sent(value: &str) -> Sent {
        Sent::new(&HeaderSet::new(HostileClass::Arbitrary).with("Baggage", value))
    }

    #[test]
    fn what_was_sent_is_found_and_nothing_else() {
        let sent = sent("a=%2C1;p;q = 2, b==%zz");
        let has = |text: &str| entries(text).iter().all(|entry| sent.has(entry));
        assert!(has("a=%2C1;p;q=2") && has("a=%2C1") && has("b==%25zz"));
        assert!(!has("a=1") && !has("a=%2C1;r") && !has("c=1"));
        assert_eq!(sent.entries(), 2);
    }

    #[test]
    fn a_line_break_makes_headers() {
        let sent = sent("a=1\r\nbaggage: b=2");
        assert!(sent.has(&entries("b=2")[0]) && sent.has(&entries("a=1")[0]));
    }
}

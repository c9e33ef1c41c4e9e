//! The `tracestate` list: reading, checking, cutting, writing.

use opentelemetry::trace::TraceState;

/// The number of members a list may have.
// PROP-13.
const MAX_MEMBERS: usize = 32;

/// A member longer than this goes first when a list must be cut.
// PROP-13.
const LONG_MEMBER: usize = 128;

/// The longest text written.
///
/// At least 512 characters have to be propagated. A member has up to 513 characters and a comma, so under
/// this limit cutting whole members always leaves 512 or more.
// PROP-13.
const MAX_LENGTH: usize = 512 + 513;

type Member<'a> = (&'a str, &'a str);

/// Reads all `tracestate` headers as one list in their order.
///
/// A list with a malformed member or a byte outside 0x20–0x7E is invalid and reads as empty. Of a repeated
/// key the first member is kept. More than 32 members are cut to 32.
// PROP-12, PROP-14, PROP-13.
pub(super) fn parse(headers: &[&str]) -> TraceState {
    let mut members = Vec::new();
    for text in headers.iter().flat_map(|header| header.split(',')) {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            continue;
        }
        let Some(member) = text.split_once('=').filter(is_valid) else {
            return TraceState::NONE;
        };
        if members.iter().any(|(key, _)| *key == member.0) {
            continue;
        }
        members.push(member);
        if members.len() > MAX_MEMBERS {
            cut_one(&mut members);
        }
    }
    store(members)
}

/// Writes the list, or returns `None` when nothing of it is to be written.
///
/// Members that break the grammar, which other propagators let in, are left out.
// PROP-06, PROP-13.
pub(super) fn format(state: &TraceState) -> Option<String> {
    let mut members: Vec<_> = state.into_iter().filter(is_valid).collect();
    while members.len() > MAX_MEMBERS || length(&members) > MAX_LENGTH {
        cut_one(&mut members);
    }
    if members.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(length(&members));
    for (key, value) in members {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend([key, "=", value]);
    }
    Some(text)
}

/// Builds the stored list.
///
/// The API's type refuses some keys of level 2, for example `a@b@c`; those members are left out, the others stay.
fn store(members: Vec<Member<'_>>) -> TraceState {
    TraceState::from_key_value(members.iter().copied())
        .or_else(|_| {
            let accepted = |member: &Member<'_>| TraceState::from_key_value([*member]).is_ok();
            TraceState::from_key_value(members.iter().copied().filter(accepted))
        })
        .unwrap_or(TraceState::NONE)
}

/// Removes the rightmost long member, or, when there is none, the rightmost member.
fn cut_one(members: &mut Vec<Member<'_>>) {
    match members.iter().rposition(|member| member_length(member) > LONG_MEMBER) {
        Some(position) => {
            members.remove(position);
        }
        None => {
            members.pop();
        }
    }
}

/// Returns the length of the written list, without the comma after the last member.
fn length(members: &[Member<'_>]) -> usize {
    let commas = members.len().saturating_sub(1);
    members.iter().map(member_length).sum::<usize>() + commas
}

fn member_length((key, value): &Member<'_>) -> usize {
    key.len() + 1 + value.len()
}

fn is_valid((key, value): &Member<'_>) -> bool {
    is_key(key.as_bytes()) && is_value(value.as_bytes())
}

fn is_key(key: &[u8]) -> bool {
    let starts_well = matches!(key.first(), Some(b'a'..=b'z' | b'0'..=b'9'));
    let inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    starts_well && key.len() <= 256 && key.iter().all(inner)
}

fn is_value(value: &[u8]) -> bool {
    let ends_well = value.last().is_some_and(|byte| *byte != b' ');
    let inner = |byte: &u8| matches!(byte, 0x20..=0x2b | 0x2d..=0x3c | 0x3e..=0x7e);
    ends_well && value.len() <= 256 && value.iter().all(inner)
}

//! Percent-encoding of baggage values.

use std::borrow::Cow;

const DIGITS: [u8; 16] = *b"0123456789ABCDEF";

/// Tells whether a byte may stand in a baggage value.
// BAGG-01.
pub(super) const fn is_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

/// Appends `value`, encoding every byte that may not stand in a baggage value, `%` itself, and `+`, in which some readers see a space.
// BAGG-02.
pub(super) fn encode_into(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if is_octet(byte) && !matches!(byte, b'%' | b'+') {
            text.push(char::from(byte));
        } else {
            let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0x0f)]];
            text.push('%');
            text.extend(digits.map(char::from));
        }
    }
}

/// Decodes `%XX`; bytes that are not UTF-8 become U+FFFD, a `%` without two digits stays.
// BAGG-03.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = escape(rest).unwrap_or((first, tail));
        bytes.push(byte);
        rest = tail;
    }
    let text = String::from_utf8(bytes);
    Cow::Owned(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads one `%XX` at the start of `text`.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, rest @ ..] = text else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = u8::try_from((digit(*high)? << 4) | digit(*low)?).ok()?;
    Some((byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(value: &str) -> String {
        let mut text = String::new();
        encode_into(&mut text, value);
        text
    }

    // BAGG-02: all but the value octets is encoded, and `%` and `+` too.
    #[test]
    fn encodes_what_may_not_stand_in_a_value() {
        for (value, text) in [
            ("", ""),
            ("plain=/:'", "plain=/:'"),
            ("a+b c", "a%2Bb%20c"),
            ("a%20b", "a%2520b"),
            (" a b ", "%20a%20b%20"),
            ("\",;\\", "%22%2C%3B%5C"),
            ("\r\n\t\0\x7f", "%0D%0A%09%00%7F"),
            ("é🦀", "%C3%A9%F0%9F%A6%80"),
        ] {
            assert_eq!(encode(value), text, "{value:?}");
            assert_eq!(decode(text), value, "{text:?}");
        }
    }

    // BAGG-03: bad UTF-8 becomes U+FFFD, `+` stays, an incomplete escape stays.
    #[test]
    fn decodes_without_throwing_anything_away() {
        for (text, value) in [
            ("a%FFb", "a\u{fffd}b"),
            ("%C3%28", "\u{fffd}("),
            ("a+b", "a+b"),
            ("100%", "100%"),
            ("%2", "%2"),
            ("%zz%41", "%zzA"),
            ("%+1", "%+1"),
            ("%c3%a9", "é"),
            ("%%41", "%A"),
        ] {
            assert_eq!(decode(text), value, "{text:?}");
        }
    }
}

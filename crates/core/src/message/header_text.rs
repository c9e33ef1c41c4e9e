//! Text in headers that hold printable ASCII alone: [`escape`] and [`unescape`].
//!
//! What the framework writes into a header by itself is escaped on every broker: the reason of a dead letter, the text of an error reply,
//! the name that a message was sent to. Where the broker allows ASCII alone, as NATS does, so are ids and what a stranger sent in the headers of a message that is
//! passed on. The form is that of RFC 8187, which HTTP uses in the parameters of its headers: `UTF-8''` and then the bytes, where all but
//! letters, digits and some signs are `%` and two digits. A text that needs no escape stays as it is.

use std::borrow::Cow;

/// What an escaped text begins with.
const MARK: &str = "UTF-8''";

const DIGITS: [u8; 16] = *b"0123456789ABCDEF";

/// Returns a text as printable ASCII. A tab stays, as does all else that is printable; a text with any other character is escaped as a whole,
/// and so is one that begins like an escaped one.
///
/// # Examples
///
/// ```
/// use throughline_core::message::header_text;
///
/// assert_eq!(header_text::escape("out of stock"), "out of stock");
/// assert_eq!(header_text::escape("kein Käse"), "UTF-8''kein%20K%C3%A4se");
/// ```
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if is_plain(text.as_bytes()) && !text.starts_with(MARK) { Cow::Borrowed(text) } else { Cow::Owned(escaped(text)) }
}

/// Returns the text that [`escape`] made a value of. Any other value stays as it is, also one that only looks like an escaped one.
///
/// # Examples
///
/// ```
/// use throughline_core::message::header_text;
///
/// assert_eq!(header_text::unescape("UTF-8''kein%20K%C3%A4se"), "kein Käse");
/// assert_eq!(header_text::unescape("100%25"), "100%25");
/// ```
#[must_use]
pub fn unescape(value: &str) -> Cow<'_, str> {
    let text = value.strip_prefix(MARK).and_then(decode).filter(|text| escape(text) == value);
    text.map_or(Cow::Borrowed(value), Cow::Owned)
}

/// Tells whether a value holds nothing but printable ASCII and tabs.
///
/// # Examples
///
/// ```
/// use throughline_core::message::header_text;
///
/// assert!(header_text::is_plain(b"out of stock"));
/// assert!(!header_text::is_plain("Käse".as_bytes()) && !header_text::is_plain(b"a\nb"));
/// ```
#[must_use]
pub fn is_plain(value: &[u8]) -> bool {
    // Without an early end, so that the compiler can look at many bytes at once.
    value.iter().fold(true, |all, byte| all & matches!(byte, b'\t' | 0x20..=0x7e))
}

/// Returns a text of the framework's own as the value of a header on any broker: at most 200 characters of it, escaped.
pub(crate) fn own(text: &str) -> String {
    let kept = text.char_indices().nth(200).and_then(|(end, _)| text.get(..end)).unwrap_or(text);
    escape(kept).into_owned()
}

fn escaped(text: &str) -> String {
    let mut value = String::with_capacity(MARK.len() + 3 * text.len());
    value.push_str(MARK);
    for byte in text.bytes() {
        if is_attribute_character(byte) {
            value.push(char::from(byte));
        } else {
            let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0x0f)]];
            value.push('%');
            value.extend(digits.map(char::from));
        }
    }
    value
}

fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (u8::try_from((digit(*high)? << 4) | digit(*low)?).ok()?, tail)
            }
            (b'%', _) => return None,
            (other, tail) => (other, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// The `attr-char` of RFC 8187.
const fn is_attribute_character(byte: u8) -> bool {
    matches!(
        byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
            | b'!' | b'#' | b'$' | b'&' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_printable_stays_and_all_else_is_escaped() {
        for (text, value) in [
            ("", ""),
            ("out of stock: 100%", "out of stock: 100%"),
            ("a\tb", "a\tb"),
            ("corr ü 7", "UTF-8''corr%20%C3%BC%207"),
            ("a\r\nb", "UTF-8''a%0D%0Ab"),
            ("\u{7f}", "UTF-8''%7F"),
            ("UTF-8''x", "UTF-8''UTF-8%27%27x"),
            ("ü%'\"*", "UTF-8''%C3%BC%25%27%22%2A"),
        ] {
            assert_eq!((escape(text), unescape(value)), (value.into(), text.into()));
        }
    }

    #[test]
    fn what_nobody_escaped_so_stays() {
        for value in [
            "UTF-8''",
            "UTF-8''abc",
            "UTF-8''%C3",
            "UTF-8''%C3%",
            "UTF-8''%zz",
            "UTF-8''%C3%28",
            "UTF-8''%c3%bc",
            "UTF-8''ü",
            "UTF-8''%C3%BC x",
            "utf-8''%C3%BC",
            "%C3%BC",
            "a+b",
        ] {
            assert_eq!(unescape(value), value);
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "(UTF-8'')?\\PC{0,20}|.*") {
            let value = escape(&text);
            prop_assert!(is_plain(value.as_bytes()), "{value}");
            prop_assert_eq!(unescape(&value), &*text);
        }

        #[test]
        fn what_was_read_is_written_again_as_it_came(value in "UTF-8''([a-z]|%[0-9A-F]{2}){0,20}|[ -~]{0,20}") {
            let text = unescape(&value);
            if text != value || !value.starts_with(MARK) {
                prop_assert_eq!(escape(&text), &*value);
            }
        }
    }
}

use std::fmt;

use bytes::Bytes;

use crate::message::{Delivery, header_text};

/// How much of the text of an error reply is kept, in characters.
const TEXT: usize = 200;

/// How much of its code.
const CODE: usize = 32;

/// The names of the headers that make a reply an error reply.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::ErrorReplyHeaders;
/// let headers = ErrorReplyHeaders::default();
/// assert_eq!((headers.code, headers.text), ("reply-error-code", "reply-error"));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorReplyHeaders {
    /// The header of the code.
    pub code: &'static str,
    /// The header of the text.
    pub text: &'static str,
}

impl Default for ErrorReplyHeaders {
    fn default() -> Self {
        Self { code: "reply-error-code", text: "reply-error" }
    }
}

/// What a request got in place of its reply: the word of the other side that it failed.
///
/// The other side chooses what it says. Code and text are short, and control characters in them are escaped, so both can be shown.
///
/// # Examples
///
/// ```
/// use throughline_core::{PublishError, Publisher};
///
/// async fn price(publisher: &Publisher) -> Result<Option<String>, PublishError> {
///     match publisher.request("prices.get", "bread").await {
///         Ok(price) => Ok(Some(price)),
///         Err(error) if error.error_reply().is_some_and(|reply| reply.code() == Some(404)) => Ok(None),
///         Err(error) => Err(error),
///     }
/// }
/// ```
#[derive(Clone, PartialEq)]
pub struct ErrorReply {
    code: String,
    text: String,
    body: Bytes,
}

impl ErrorReply {
    /// Reads an error reply; `None` where the reply has neither of the headers.
    pub(crate) fn read(reply: &Delivery, headers: ErrorReplyHeaders) -> Option<Self> {
        let (code, text) = (reply.header(headers.code), reply.header(headers.text));
        if code.is_none() && text.is_none() {
            return None;
        }
        let text = header_text::unescape(text.unwrap_or_default());
        let (code, text) = (shown(code.unwrap_or_default(), CODE), shown(&text, TEXT));
        Some(Self { code, text, body: reply.payload().clone() })
    }

    /// Returns the code where it is a number from 100 to 599, as the codes of HTTP are.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.code.parse().ok().filter(|code| (100..600).contains(code))
    }

    /// Returns the code as it was sent, at most 32 characters of it: services in other languages may have words for it.
    #[must_use]
    pub fn code_text(&self) -> &str {
        &self.code
    }

    /// Returns what the other side says, at most 200 characters of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the body of the reply, which is empty where the other side is this framework.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.code.is_empty() || self.text.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.code, self.text)
    }
}

impl fmt::Debug for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorReply")
            .field("code", &self.code)
            .field("text", &self.text)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

fn shown(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for (place, character) in text.trim().chars().enumerate() {
        if place == most {
            shown.push('…');
            break;
        }
        match character {
            // Quotes and the like stay as they are.
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Headers;

    fn read(headers: &[(&'static str, &str)]) -> Option<ErrorReply> {
        let headers: Headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let reply = Delivery::new("inbox", "body").with_headers(headers);
        ErrorReply::read(&reply, ErrorReplyHeaders::default())
    }

    #[test]
    fn a_reply_without_the_headers_is_none() {
        assert_eq!(read(&[("tenant", "acme")]), None);
    }

    #[test]
    fn either_header_makes_an_error_reply() {
        let both = read(&[("Reply-Error-Code", "404"), ("reply-error", "no such item")]).unwrap();
        assert_eq!((both.code(), both.text(), both.body().as_ref()), (Some(404), "no such item", &b"body"[..]));
        assert_eq!(both.to_string(), "404 no such item");
        assert_eq!(read(&[("reply-error-code", "500")]).unwrap().to_string(), "500");
        let text = read(&[("reply-error", "no")]).unwrap();
        assert_eq!((text.code(), text.code_text(), text.to_string().as_str()), (None, "", "no"));
    }

    #[test]
    fn an_escaped_text_is_read_as_it_was() {
        assert_eq!(read(&[("reply-error", "UTF-8''kein%20K%C3%A4se%0A")]).unwrap().text(), "kein Käse");
        assert_eq!(read(&[("reply-error", "UTF-8''%1B[31m")]).unwrap().text(), "UTF-8''%1B[31m", "nobody escapes so");
        assert_eq!(read(&[("reply-error", "UTF-8''%1B%5B31m")]).unwrap().text(), "\\u{1b}[31m");
    }

    #[test]
    fn only_a_code_that_is_like_those_of_http_is_a_number() {
        for (code, number) in [("100", Some(100)), ("599", Some(599)), ("99", None), ("600", None), ("-1", None)] {
            assert_eq!(read(&[("reply-error-code", code)]).unwrap().code(), number, "{code}");
        }
        let word = read(&[("reply-error-code", "INVALID_REQUEST")]).unwrap();
        assert_eq!((word.code(), word.code_text()), (None, "INVALID_REQUEST"));
    }

    #[test]
    fn what_a_stranger_says_is_short_and_has_no_control_characters() {
        let text = format!("a\u{1b}[31m\n\u{202e}{}", "x".repeat(10_000));
        let reply = read(&[("reply-error-code", &"9".repeat(1000)), ("reply-error", &text)]).unwrap();
        assert!(reply.text().starts_with("a\\u{1b}[31m\\n\\u{202e}x"), "{reply}");
        assert!(reply.to_string().len() < 300, "{reply}");
        assert_eq!(reply.code(), None);
        assert!(!format!("{reply:?}").contains('\u{1b}'));
    }
}

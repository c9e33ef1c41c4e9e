use std::error::Error;
use std::fmt;

use lapin::types::ShortString;
use throughline_core::broker::PublishErrorKind;
use throughline_core::{BrokerError, PublishError};

/// How many bytes a name of the protocol may have.
pub(crate) const LONGEST: usize = 255;

/// Turns a text into a name of the protocol: of an exchange, a queue, a key, an id, a header.
///
/// The client's own conversion panics on one that is too long.
pub(crate) fn short(what: &'static str, text: &str) -> Result<ShortString, TooLong> {
    ShortString::try_new(text).map_err(|_| TooLong { what, bytes: text.len() })
}

/// What is too long for the protocol. It does not say the text, which may be a stranger's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TooLong {
    what: &'static str,
    bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, bytes } = self;
        write!(f, "the {what} has {bytes} bytes, and AMQP takes {LONGEST} at most: use a shorter one")
    }
}

impl Error for TooLong {}

impl From<TooLong> for BrokerError {
    fn from(why: TooLong) -> Self {
        Self::configuration(why.to_string())
    }
}

impl From<TooLong> for PublishError {
    fn from(why: TooLong) -> Self {
        let kind = match why.what {
            "exchange" | "routing key" => PublishErrorKind::InvalidDestination,
            _ => PublishErrorKind::Encode,
        };
        Self::new(kind, "name_too_long", why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_not_letters() {
        assert!(short("queue", &"q".repeat(255)).is_ok());
        let why = short("queue", &"ü".repeat(128)).unwrap_err();
        assert!(why.to_string().contains("the queue has 256 bytes"), "{why}");
    }
}

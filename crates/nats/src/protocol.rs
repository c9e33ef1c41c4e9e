use async_nats::Client;
use throughline_core::{BrokerError, PublishError};

use crate::{error, semconv};

/// How long a line of the protocol may be where the server has its default. It does not tell its clients.
pub(crate) const CONTROL_LINE: usize = 4096;

/// How long the name of a stream, a consumer or a group of one may be.
pub(crate) const LONGEST_NAME: usize = 255;

/// What a line has besides names: the two sizes of a publish, or the number of a subscription.
const NUMBERS: usize = 24;

/// What the client puts behind the inbox prefix for a request.
const INBOX_TOKENS: usize = 46;

/// What a request to JetStream has before the names: `$JS.API.CONSUMER.DURABLE.CREATE.`, with room for a domain.
const API_PREFIX: usize = 96;

/// How much of a subject an error shows.
const SHOWN: usize = 64;

/// What the server takes on one line of its protocol. It answers a longer one by closing the connection, and all that is under
/// way on it is lost: hence it is checked before anything is written.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    limit: usize,
}

impl Line {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit }
    }

    const fn takes(self, names: usize) -> bool {
        names.saturating_add(NUMBERS) <= self.limit
    }

    /// Checks a publish: its subject, and how long its reply subject is, where it has one.
    pub(crate) fn check_publish(self, subject: &str, reply: usize) -> Result<(), PublishError> {
        check_subject(subject)?;
        if self.takes(subject.len().saturating_add(reply)) {
            return Ok(());
        }
        Err(error::invalid_subject(&shown(subject), "it is longer than the server takes (`max_control_line`)"))
    }

    /// Checks a request, whose reply subject the client makes.
    pub(crate) fn check_request(self, subject: &str, inbox_prefix: usize) -> Result<(), PublishError> {
        self.check_publish(subject, inbox_prefix.saturating_add(INBOX_TOKENS))
    }

    /// Returns how long the inbox prefix of a client is. It is looked at only where the subject is so long that it matters.
    pub(crate) fn inbox(self, subject: &str, client: impl FnOnce() -> Client) -> usize {
        if subject.len() > self.limit / 4 {
            semconv::inbox_prefix(&client()).len()
        } else {
            semconv::DEFAULT_INBOX.len()
        }
    }

    /// Checks what is subscribed to.
    pub(crate) fn check_subscription(self, subject: &str, group: Option<&str>) -> Result<(), BrokerError> {
        if let Some(group) = group {
            check_group(group, subject)?;
        }
        if self.takes(subject.len().saturating_add(group.map_or(0, str::len))) {
            return Ok(());
        }
        Err(error::invalid_subscription(&shown(subject), "it is longer than the server takes (`max_control_line`)"))
    }

    /// Checks what is asked of JetStream about a stream: names and a filter become one subject.
    pub(crate) fn check_api(self, names: &[&str], inbox_prefix: usize) -> Result<(), BrokerError> {
        let length: usize = names.iter().map(|name| name.len() + 1).sum();
        if self.takes(length.saturating_add(API_PREFIX + INBOX_TOKENS).saturating_add(inbox_prefix)) {
            return Ok(());
        }
        Err(BrokerError::configuration(format!(
            "the names {names} are together longer than the server takes (`max_control_line`): shorten the filter",
            names = names.iter().map(|name| format!("`{}`", shown(name))).collect::<Vec<_>>().join(", "),
        )))
    }

    /// Checks the prefix of the inboxes, which stands on the line of each request.
    pub(crate) fn check_inbox(self, prefix: &str) -> Result<(), BrokerError> {
        if prefix.len() <= LONGEST_NAME && self.takes(prefix.len().saturating_add(INBOX_TOKENS)) {
            return Ok(());
        }
        Err(BrokerError::configuration(format!(
            "the inbox prefix `{}` is longer than {LONGEST_NAME} bytes: every request would carry it, shorten it",
            shown(prefix)
        )))
    }
}

/// Checks a subject to publish to as strictly as the server reads it; the client looks for white space only.
fn check_subject(name: &str) -> Result<(), PublishError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if has_space(name) {
        "it has white space"
    } else {
        match name.as_bytes().split(|sign| *sign == b'.').find(|token| matches!(*token, b"" | b"*" | b">")) {
            None => return Ok(()),
            Some(b"") => "it has an empty token",
            Some(_) => "it has a wildcard",
        }
    };
    Err(error::invalid_subject(&shown(name), why))
}

fn check_group(group: &str, subject: &str) -> Result<(), BrokerError> {
    if !group.is_empty() && !has_space(group) {
        return Ok(());
    }
    Err(error::invalid_group(&shown(subject)))
}

/// Checks the name of a stream or a durable consumer, which becomes part of subjects and of a folder's name.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), BrokerError> {
    let is_bad = |sign: char| ".*>/\\".contains(sign) || sign.is_whitespace() || sign.is_control();
    if !name.is_empty() && name.len() <= LONGEST_NAME && !name.contains(is_bad) {
        return Ok(());
    }
    Err(BrokerError::configuration(format!(
        "`{}` cannot be the name of a {what}: use one to {LONGEST_NAME} bytes without a dot, `*`, `>`, slash or white space",
        shown(name)
    )))
}

/// Tells whether a reply subject is one of the server's own: its APIs, its system, acknowledgements, buckets. Whoever sends a message
/// names its reply subject, and an answer there would act on the server with the rights of the service that answers. An inbox of
/// this client is one.
pub(crate) fn is_of_server(reply: &str, own_inbox: &str) -> bool {
    reply.starts_with('$') && semconv::inbox_template(reply, own_inbox).is_none()
}

/// Tells whether a name would break the line. The first look is fast, for nearly all have none.
pub(crate) fn has_space(name: &str) -> bool {
    !name.bytes().all(|sign| sign.is_ascii_graphic())
        && name.contains(|sign: char| sign.is_whitespace() || sign.is_control())
}

/// Returns a name as an error shows it: on one line, and not all of one that is too long.
pub(crate) fn shown(name: &str) -> String {
    let start: String = name.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN).is_some() { format!("{start}…") } else { start }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};

    use super::*;

    const LINE: Line = Line::new(CONTROL_LINE);

    #[test]
    fn a_subject_to_publish_to_has_no_wildcard_and_no_empty_token() {
        for name in ["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "*", ">", "a\r\nPUB b", "a\u{0}b", "a\tb", "a\u{a0}b"]
        {
            let error = LINE.check_publish(name, 0).unwrap_err();
            assert_eq!(
                (error.kind(), error.error_type()),
                (PublishErrorKind::InvalidDestination, "invalid_subject"),
                "{name:?}"
            );
        }
        for name in ["a", "a.b", "$SYS.x", "a*b", "größe"] {
            assert!(LINE.check_publish(name, 0).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn what_is_longer_than_a_line_is_no_destination() {
        let long = "a".repeat(5000);
        let error = LINE.check_publish(&long, 0).unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::InvalidDestination);
        assert!(error.to_string().len() < 400, "an error does not repeat all of it: {error}");
        let fits = "a".repeat(3900);
        assert!(LINE.check_publish(&fits, 0).is_ok() && LINE.check_request(&fits, 6).is_ok());
        assert_eq!(LINE.check_publish(&fits, 200).unwrap_err().kind(), PublishErrorKind::InvalidDestination);
        assert_eq!(LINE.check_request(&fits, 200).unwrap_err().kind(), PublishErrorKind::InvalidDestination);
        assert!(Line::new(8192).check_publish(&long, 0).is_ok());
    }

    #[test]
    fn a_subscription_that_is_too_long_and_a_group_that_breaks_the_line_are_configuration_errors() {
        let long = "a".repeat(5000);
        for (subject, group) in [
            (&*long, None),
            ("a", Some(&*long)),
            ("a", Some("")),
            ("a", Some("a b")),
            ("a", Some("a\r\nb")),
            ("a", Some("a\u{0}")),
        ] {
            let error = LINE.check_subscription(subject, group).unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Configuration, "{group:?}");
        }
        assert!(LINE.check_subscription("a.*.>", Some("stock.*")).is_ok());
    }

    #[test]
    fn names_that_the_server_would_not_take_are_configuration_errors() {
        let long = "a".repeat(LONGEST_NAME + 1);
        for name in ["", "a.b", "a*", ">", "a/b", "a\\b", "a b", "a\u{0}", &long] {
            assert_eq!(check_name("stream", name).unwrap_err().kind(), BrokerErrorKind::Configuration, "{name:?}");
        }
        assert!(check_name("stream", &"a".repeat(LONGEST_NAME)).is_ok());
        assert!(LINE.check_api(&["ORDERS", "stock", &"a".repeat(4000)], 6).is_err());
        assert!(LINE.check_api(&["ORDERS", "stock", "orders.placed"], 6).is_ok());
        assert!(LINE.check_inbox(&"a".repeat(5000)).is_err() && LINE.check_inbox("_INBOX").is_ok());
    }

    proptest! {
        #[test]
        fn no_subject_makes_the_check_panic(name in ".*") {
            let _ = LINE.check_publish(&name, 0);
        }
    }
}

use super::BrokerError;
use crate::propagation::{is_propagation_header, is_writable};

/// The names of the headers that hold what a broker has no place of its own for: ids, reply address, media type.
///
/// They are set for a connection, `Nats::with_header_names` and `Kafka::with_header_names`, so that what publishes, consumes, asks and answers there
/// agrees; the raw clients have a method of that name. Headers of these names alone are read as such, in any case; others stay ordinary headers.
/// In memory and on RabbitMQ nothing is to be set: there these are properties of the message. The headers of retries, dead letters and
/// error replies keep their names.
///
/// | | default | [`faststream`](Self::faststream) |
/// | --- | --- | --- |
/// | message id, on Kafka | `message-id` | `message_id` |
/// | correlation id | `correlation-id` | `correlation_id` |
/// | reply address | `reply-to`, on Kafka | `reply_to`, on Kafka and JetStream |
/// | media type | `content-type` | `content-type` |
///
/// On NATS the message id is always `Nats-Msg-Id`, which the server itself reads.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::HeaderNames;
///
/// let names = HeaderNames::new().with_correlation_id("x-correlation-id");
/// assert_eq!((names.correlation_id, names.content_type), ("x-correlation-id", "content-type"));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HeaderNames {
    /// The header of the message id.
    pub message_id: &'static str,
    /// The header of the correlation id.
    pub correlation_id: &'static str,
    /// The header of the reply address.
    pub reply_to: &'static str,
    /// The header of the media type.
    pub content_type: &'static str,
}

impl HeaderNames {
    /// Creates the names that count where none are set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            message_id: "message-id",
            correlation_id: "correlation-id",
            reply_to: "reply-to",
            content_type: "content-type",
        }
    }

    /// Returns the names that FastStream for Python reads and writes.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::HeaderNames;
    ///
    /// assert_eq!(HeaderNames::faststream().correlation_id, "correlation_id");
    /// ```
    #[must_use]
    pub const fn faststream() -> Self {
        Self {
            message_id: "message_id",
            correlation_id: "correlation_id",
            reply_to: "reply_to",
            content_type: "content-type",
        }
    }

    /// Sets the header of the message id.
    #[must_use]
    pub const fn with_message_id(mut self, name: &'static str) -> Self {
        self.message_id = name;
        self
    }

    /// Sets the header of the correlation id.
    #[must_use]
    pub const fn with_correlation_id(mut self, name: &'static str) -> Self {
        self.correlation_id = name;
        self
    }

    /// Sets the header of the reply address.
    #[must_use]
    pub const fn with_reply_to(mut self, name: &'static str) -> Self {
        self.reply_to = name;
        self
    }

    /// Sets the header of the media type.
    #[must_use]
    pub const fn with_content_type(mut self, name: &'static str) -> Self {
        self.content_type = name;
        self
    }

    /// Checks the names, for an adapter.
    ///
    /// # Errors
    ///
    /// Fails when a name is empty or not visible ASCII without `:`, stands twice, or is that of a header that has another meaning: one of a
    /// propagation format, of a retry, a dead letter or an error reply, or of the NATS server.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::HeaderNames;
    ///
    /// assert!(HeaderNames::faststream().check().is_ok());
    /// assert!(HeaderNames::new().with_reply_to("traceparent").check().is_err());
    /// ```
    pub fn check(&self) -> Result<(), BrokerError> {
        let names = [self.message_id, self.correlation_id, self.reply_to, self.content_type];
        for (index, name) in names.into_iter().enumerate() {
            let why = if !is_writable(name, "") {
                "it must be visible ASCII without `:`"
            } else if is_propagation_header(name) || is_taken(name) {
                "headers of that name have another meaning"
            } else if names.iter().take(index).any(|other| other.eq_ignore_ascii_case(name)) {
                "it stands twice"
            } else {
                continue;
            };
            return Err(BrokerError::configuration(format!(
                "`{}` is no name for a header of ids: {why}",
                name.escape_debug()
            )));
        }
        Ok(())
    }
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells whether the framework, or a server, has headers of such a name.
fn is_taken(name: &str) -> bool {
    let begins = |start: &str| name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    ["retry-", "dead-letter-", "reply-error", "nats-"].into_iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerErrorKind;

    #[test]
    fn names_that_mean_something_else_are_refused() {
        assert!(HeaderNames::default().check().is_ok() && HeaderNames::faststream().check().is_ok());
        for name in [
            "",
            "a b",
            "a:b",
            "größe",
            "Baggage",
            "x-b3-flags",
            "retry-attempt",
            "Dead-Letter-Reason",
            "reply-error",
            "Nats-Msg-Id",
        ] {
            let error = HeaderNames::new().with_correlation_id(name).check().unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Configuration, "{name:?}");
        }
        assert!(HeaderNames::new().with_message_id("Reply-To").check().is_err(), "it stands twice");
        assert!(HeaderNames::new().with_reply_to("x-a").with_content_type("X-A").check().is_err());
    }
}

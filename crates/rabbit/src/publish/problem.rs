use std::time::Duration;

use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};
use throughline_core::{BrokerError, PublishError};

use super::failure::{Cause, PublishFailure};
use crate::destination::Address;
use crate::error::{self, CONNECTION_LOST};
use crate::names::TooLong;
use crate::semconv::target_name;

/// Why a message was not published.
#[derive(Debug)]
pub(crate) enum Problem {
    /// It cannot be sent as it is.
    Unsendable(PublishError),
    /// The service has closed the connection.
    Closed,
    /// There was no connection for so long.
    NoConnection(Duration),
    /// The server was in an alarm for so long.
    Blocked(Duration),
    /// Another message to an exchange that is not known was not confirmed for so long.
    NoTurn(Duration),
    /// So many were not confirmed for so long.
    NoRoom(usize, Duration),
    /// No channel could be opened.
    NoChannel(BrokerError),
    /// The channel had ended before.
    ChannelEnded,
    /// No queue took it.
    Returned { code: u16, text: String },
    /// A queue did not take it.
    Nacked,
    /// The server has refused this message.
    Refused(lapin::Error),
    /// Channel or connection have ended before the answer.
    Unknown(lapin::Error),
    /// There was no answer for so long.
    Unconfirmed(Duration),
}

impl Problem {
    /// Of a message that went alone, the end of the channel is the answer.
    pub(super) fn alone(self) -> Self {
        match self {
            Self::Unknown(failed) if failed.is_amqp_soft_error() => Self::Refused(failed),
            other => other,
        }
    }

    pub(crate) fn into_error(self, to: Address<'_>) -> PublishError {
        use PublishErrorKind as Kind;
        let place = &place(to);
        let not_sent = |kind, error_type: &str, why: String| {
            let message = format!("the message to {place} was not sent: {why}");
            (PublishFailure::NotSent, PublishError::new(kind, error_type.to_owned(), message), None)
        };
        let (failure, error, client) = match self {
            Self::Unsendable(wrong) => (PublishFailure::NotSent, wrong, None),
            Self::Closed => {
                not_sent(Kind::Disconnected, CONNECTION_LOST, "the service has closed the connection".to_owned())
            }
            Self::NoConnection(wait) => not_sent(
                Kind::Disconnected,
                CONNECTION_LOST,
                format!("RabbitMQ was not reached within {wait:?}; the adapter connects again by itself"),
            ),
            Self::Blocked(wait) => not_sent(
                Kind::Unavailable,
                "blocked",
                format!(
                    "RabbitMQ took no messages for {wait:?} because of an alarm (memory or disk): look at the server"
                ),
            ),
            Self::NoRoom(most, wait) => not_sent(
                Kind::Unavailable,
                "timeout",
                format!(
                    "{most} others were not confirmed for {wait:?}: the server is slow, or raise `max_unconfirmed` or `publish_wait`"
                ),
            ),
            Self::NoTurn(wait) => not_sent(
                Kind::Unavailable,
                "timeout",
                format!(
                    "another first message to an exchange was not confirmed for {wait:?}: is the server overloaded?"
                ),
            ),
            Self::NoChannel(why) => not_sent(without_channel(&why), why.error_type(), why.to_string()),
            Self::ChannelEnded => not_sent(Kind::Disconnected, CONNECTION_LOST, "its channel had ended".to_owned()),
            Self::Returned { code, text } => (PublishFailure::Refused, returned(place, code, &text), None),
            Self::Nacked => (PublishFailure::Refused, nacked(place), None),
            Self::Refused(failed) => (PublishFailure::Refused, refused(place, &failed), Some(failed)),
            Self::Unknown(failed) => {
                let why = error::told(&failed);
                let message = format!(
                    "the message to {place} may have been stored: the channel or connection ended before the server confirmed it ({why}, \
                     which need not be about this message)"
                );
                let error = PublishError::new(Kind::Disconnected, error::error_type(&failed), message);
                (PublishFailure::MaybeStored, error, Some(failed))
            }
            Self::Unconfirmed(wait) => {
                let message = format!(
                    "the message to {place} may have been stored: RabbitMQ did not confirm it within {wait:?}: \
                     is it in an alarm, or overloaded?"
                );
                (PublishFailure::MaybeStored, PublishError::new(Kind::Timeout, "timeout", message), None)
            }
        };
        error.with_source(Cause { failure, client })
    }
}

impl From<TooLong> for Problem {
    fn from(wrong: TooLong) -> Self {
        Self::Unsendable(wrong.into())
    }
}

impl From<PublishError> for Problem {
    fn from(wrong: PublishError) -> Self {
        Self::Unsendable(wrong)
    }
}

/// Tells a connection that has no channel left from one that was lost.
fn without_channel(why: &BrokerError) -> PublishErrorKind {
    match why.kind() {
        BrokerErrorKind::Configuration => PublishErrorKind::Unavailable,
        _ => PublishErrorKind::Disconnected,
    }
}

/// Returns where a message goes, as an error shows it.
fn place(to: Address<'_>) -> String {
    match (to.exchange, to.key) {
        ("", key) => format!("queue `{}`", target_name("", key)),
        (exchange, "") => format!("exchange `{exchange}`"),
        (exchange, key) => format!("exchange `{exchange}` with key `{key}`"),
    }
}

fn returned(place: &str, code: u16, text: &str) -> PublishError {
    let why = match code {
        312 => "no queue is bound there: declare and bind it before, or publish with `not_mandatory`",
        313 => "no consumer was ready for it",
        _ => "the server sent it back",
    };
    let message = format!("the message to {place} came back ({code} {text}): {why}");
    PublishError::new(PublishErrorKind::NotFound, return_type(code), message)
}

/// Returns `error.type` of a message that came back.
// ATTR-R-14.
pub(crate) const fn return_type(code: u16) -> &'static str {
    match code {
        312 => "no-route",
        313 => "no-consumers",
        _ => "returned",
    }
}

fn nacked(place: &str) -> PublishError {
    let message = format!(
        "RabbitMQ could not take the message to {place}: a queue is full and rejects what is published, or failed. \
         Where several queues are bound, some of them may have it"
    );
    PublishError::new(PublishErrorKind::Unavailable, "nack", message)
}

fn refused(place: &str, failed: &lapin::Error) -> PublishError {
    use PublishErrorKind as Kind;
    let told = error::told(failed);
    let is_large = told.contains("max size") || told.contains("larger than");
    let (kind, what_to_do) = match error::reply_code(failed) {
        Some(404) => (Kind::NotFound, "declare the exchange before, or correct its name"),
        Some(403) => (Kind::Unauthorized, "grant the user the right to write there (`rabbitmqctl set_permissions`)"),
        Some(406) if is_large => (Kind::TooLarge, "send less, or raise `max_message_size` of the server"),
        Some(311) => (Kind::TooLarge, "send less"),
        _ => (Kind::Refused, "correct the message"),
    };
    PublishError::new(
        kind,
        error::error_type(failed),
        format!("RabbitMQ refuses the message to {place} ({told}): {what_to_do}"),
    )
}

use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};
use throughline_core::{BrokerError, PublishError, Settlement};

use crate::client::Error;

/// Returns `error.type`: one of a fixed list, never the text of an error.
fn error_type(error: &Error) -> &'static str {
    match error {
        Error::Closed => "closed",
        Error::NoResponders => "no_responders",
        Error::NotOpen => "not_open",
        Error::TimedOut => "timeout",
        Error::TooLarge => "too_large",
    }
}

/// Says what a publish failed with. The kind says whether another attempt can pass.
pub(crate) fn publish(error: Error, subject: &str) -> PublishError {
    let kind = match error {
        Error::Closed => PublishErrorKind::Disconnected,
        Error::NoResponders => PublishErrorKind::NotFound,
        Error::TimedOut => PublishErrorKind::Timeout,
        Error::TooLarge => PublishErrorKind::TooLarge,
        Error::NotOpen => PublishErrorKind::Other,
    };
    PublishError::new(kind, error_type(&error), format!("the message to `{subject}` was not published: {error}"))
        .with_source(error)
}

/// Says what a settlement failed with.
pub(crate) fn settle(error: Error) -> BrokerError {
    let message = format!("the message was not settled: {error}");
    BrokerError::new(BrokerErrorKind::Other, error_type(&error), message).with_source(error)
}

/// Says that the broker has no such settlement.
pub(crate) fn unknown(settlement: &Settlement) -> BrokerError {
    let message = format!("pigeon post does not know {settlement:?}: acknowledge, reject or retry");
    BrokerError::new(BrokerErrorKind::Unsupported, "unsupported", message)
}

/// Says that a subscription has ended by itself.
pub(crate) fn ended(subject: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Ended, "ended", format!("the subscription to `{subject}` has ended"))
        .with_source(Error::Closed)
}

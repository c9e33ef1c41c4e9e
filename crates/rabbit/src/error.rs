use std::borrow::Cow;
use std::time::Duration;

use lapin::protocol::AMQPErrorKind;
use lapin::uri::AMQPUri;
use lapin::{Error, ErrorKind};
use throughline_core::BrokerError;
use throughline_core::broker::BrokerErrorKind;

use crate::address::shown;

/// What fails for no reason with a name of its own.
pub(crate) const OTHER: &str = "_OTHER";

/// What ends with the connection, or with the channel.
pub(crate) const CONNECTION_LOST: &str = "connection_lost";

/// Returns `error.type`: the name of the server's reply in lower case with dashes, or one of ours.
// ATTR-R-14.
pub(crate) fn error_type(failed: &Error) -> Cow<'static, str> {
    match failed.kind() {
        ErrorKind::ProtocolError(reply) => reply_name(&match reply.kind() {
            AMQPErrorKind::Soft(name) => name.to_string(),
            AMQPErrorKind::Hard(name) => name.to_string(),
        }),
        ErrorKind::ChannelsLimitReached => "channel-limit".into(),
        ErrorKind::AuthProviderError(_) => "access-refused".into(),
        ErrorKind::IOError(_)
        | ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_)
        | ErrorKind::MissingHeartbeatError
        | ErrorKind::ParsingError(_) => CONNECTION_LOST.into(),
        _ => OTHER.into(),
    }
}

fn reply_name(name: &str) -> Cow<'static, str> {
    name.to_ascii_lowercase().replace(['_', ' '], "-").into()
}

/// Returns the code of the server's reply, where it made one.
pub(crate) fn reply_code(failed: &Error) -> Option<u16> {
    match failed.kind() {
        ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
        _ => None,
    }
}

/// Returns why in one line: the server's own words where it said why.
pub(crate) fn told(failed: &Error) -> String {
    match failed.kind() {
        ErrorKind::ProtocolError(reply) => format!("{} {}", reply.get_id(), reply.get_message()),
        ErrorKind::ParsingError(_) => {
            "the client cannot read what the server sent: a key, an id or a header name that is not UTF-8".to_owned()
        }
        _ => failed.to_string(),
    }
}

/// Tells whether the client could not read what the server sent.
pub(crate) fn is_unreadable(failed: &Error) -> bool {
    matches!(failed.kind(), ErrorKind::ParsingError(_))
}

/// Returns what an error that ends the whole connection is likely to come from.
const fn likely(code: u16) -> Option<&'static str> {
    match code {
        320 => Some("the server was stopped, or somebody closed the connection"),
        501 => Some("a frame is larger than both sides have agreed on, or `frame_max` is below 8,192"),
        504 => Some("the client wrote to a channel that the server had closed"),
        530 => {
            Some("the virtual host does not exist, or the server allows no more connections, channels or queues in it")
        }
        541 => {
            Some("the server failed, or a feature was asked for that it no longer has, such as transient shared queues")
        }
        _ => None,
    }
}

/// Makes the error of a call that the client or the server failed: `doing` says what was tried, as in `declare queue orders`.
pub(crate) fn broker(failed: &Error, doing: &str) -> BrokerError {
    let kind = kind(failed);
    let mut message = format!("cannot {doing}: {}", told(failed));
    if let Some(why) = reply_code(failed).and_then(likely) {
        message = format!("{message} ({why})");
    }
    if matches!(failed.kind(), ErrorKind::ChannelsLimitReached) {
        message = format!(
            "cannot {doing}: the connection has no channel left: raise `channel_max` of the server or the address, \
             or divide the subscriptions among several `Rabbit`s"
        );
    }
    BrokerError::new(kind, error_type(failed), message).with_source(failed.clone())
}

fn kind(failed: &Error) -> BrokerErrorKind {
    match (failed.kind(), reply_code(failed)) {
        (_, Some(403)) => BrokerErrorKind::Unauthorized,
        (_, Some(404)) => BrokerErrorKind::NotFound,
        (_, Some(405 | 406 | 501 | 503 | 530)) => BrokerErrorKind::Configuration,
        (_, Some(540)) => BrokerErrorKind::Unsupported,
        (_, Some(320)) => BrokerErrorKind::Disconnected,
        (_, Some(_)) => BrokerErrorKind::Other,
        (ErrorKind::ChannelsLimitReached, _) => BrokerErrorKind::Configuration,
        (ErrorKind::AuthProviderError(_), _) => BrokerErrorKind::Unauthorized,
        _ => BrokerErrorKind::Disconnected,
    }
}

/// Makes the error of a connection that was not made.
pub(crate) fn connect(failed: &Error, address: &AMQPUri) -> BrokerError {
    let (place, user) = (shown(address), &address.authority.userinfo.username);
    let (kind, message) = match (failed.kind(), reply_code(failed)) {
        (_, Some(403)) => (
            BrokerErrorKind::Unauthorized,
            format!(
                "{place} refuses the user `{user}`: correct user and password (`guest` may connect from the server's own machine only)"
            ),
        ),
        (_, Some(530)) => (
            BrokerErrorKind::Unauthorized,
            format!(
                "{place} refuses the virtual host `{}` to the user `{user}`: create it and grant the right \
                 (`rabbitmqctl add_vhost`, `rabbitmqctl set_permissions`), or correct the address: the virtual host `/` is written %2f",
                address.vhost
            ),
        ),
        (ErrorKind::AuthProviderError(_), _) => {
            (BrokerErrorKind::Unauthorized, format!("cannot authenticate at {place}: {}", told(failed)))
        }
        (ErrorKind::IOError(_), _) => (
            BrokerErrorKind::Unreachable,
            format!("no RabbitMQ server answers at {place}: start one, or correct the address: {}", told(failed)),
        ),
        (_, Some(code)) => {
            let likely = likely(code).map(|why| format!(" ({why})")).unwrap_or_default();
            (BrokerErrorKind::Configuration, format!("{place} refuses the connection: {}{likely}", told(failed)))
        }
        _ => (BrokerErrorKind::Unreachable, format!("cannot connect to {place}: {}", told(failed))),
    };
    BrokerError::new(kind, error_type(failed), message).with_source(failed.clone())
}

/// Makes the error of a server that takes the connection and says nothing.
pub(crate) fn no_handshake(place: &str, after: Duration) -> BrokerError {
    let message = format!(
        "{place} did not answer as RabbitMQ does within {after:?}: is it another service, does it want TLS (`amqps://`), or is it starting?"
    );
    BrokerError::new(BrokerErrorKind::Unreachable, "timeout", message)
}

/// Makes the error of what the server did not answer in time.
pub(crate) fn timed_out(doing: &str, after: Duration) -> BrokerError {
    let message =
        format!("cannot {doing}: the server did not answer within {after:?}: is it in an alarm, or overloaded?");
    BrokerError::new(BrokerErrorKind::Timeout, "timeout", message)
}

/// Makes the error of what was not answered until the end.
pub(crate) fn unanswered(doing: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Timeout, "timeout", format!("cannot {doing}: the server did not answer in time"))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPHardError, AMQPSoftError};

    use super::*;

    fn reply(kind: impl Into<lapin::protocol::AMQPErrorKind>) -> Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), "why".into())).into()
    }

    #[test]
    fn the_type_is_the_name_of_the_reply() {
        let types = [
            error_type(&reply(AMQPSoftError::NOTFOUND)),
            error_type(&reply(AMQPSoftError::ACCESSREFUSED)),
            error_type(&reply(AMQPSoftError::PRECONDITIONFAILED)),
            error_type(&reply(AMQPHardError::CONNECTIONFORCED)),
            error_type(&ErrorKind::MissingHeartbeatError.into()),
        ];
        let expected = ["not-found", "access-refused", "precondition-failed", "connection-forced", "connection_lost"];
        assert_eq!(types, expected, "ATTR-R-14");
    }

    #[test]
    fn a_refused_connection_says_what_to_do_and_no_password() {
        let address: AMQPUri = "amqp://stock:secret@h/shop".parse().unwrap();
        let refused = connect(&reply(AMQPSoftError::ACCESSREFUSED), &address);
        assert_eq!(refused.kind(), BrokerErrorKind::Unauthorized);
        assert!(refused.to_string().contains("`stock`") && !refused.to_string().contains("secret"));
        let no_host = connect(&reply(AMQPHardError::NOTALLOWED), &address);
        assert!(no_host.to_string().contains("`shop`") && no_host.to_string().contains("add_vhost"), "{no_host}");
    }
}

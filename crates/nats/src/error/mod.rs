mod publish;

use std::error::Error;
use std::io;

use async_nats::jetstream::consumer::pull::{self, BatchErrorKind};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{ErrorCode, context, stream};
use async_nats::{ConnectError, ConnectErrorKind, RequestErrorKind, SubscribeErrorKind};
use throughline_core::broker::BrokerErrorKind;
use throughline_core::{BoxError, BrokerError};

pub(crate) use self::publish::{
    disconnected, invalid_subject, no_room, not_written, publish, request, status_for_reply, stream_publish,
};

// The values of `error.type`: ATTR-N-10, and for JetStream also ATTR-J-07.
pub(crate) const INVALID_SUBJECT: &str = "invalid_subject";
pub(crate) const MAX_ACK_PENDING: &str = "max_ack_pending";
pub(crate) const MAX_PAYLOAD: &str = "max_payload_exceeded";
pub(crate) const NO_RESPONDERS: &str = "no_responders";
pub(crate) const OTHER: &str = "_OTHER";
pub(crate) const SEND_FAILED: &str = "send_failed";
pub(crate) const STREAM_NOT_FOUND: &str = "stream_not_found";
pub(crate) const TIMEOUT: &str = "timeout";
pub(crate) const WRONG_LAST_MESSAGE_ID: &str = "wrong_last_message_id";
pub(crate) const WRONG_LAST_SEQUENCE: &str = "wrong_last_sequence";

/// Says why no connection was made, and what to change.
pub(crate) fn connect(error: ConnectError, server: &str) -> BrokerError {
    let (kind, message) = match error.kind() {
        ConnectErrorKind::ServerParse => (
            BrokerErrorKind::Configuration,
            format!("`{server}` is not the address of a NATS server: write it as nats://host:port"),
        ),
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => (
            BrokerErrorKind::Unauthorized,
            format!(
                "the NATS server at {server} refused the credentials: \
                 correct those given to `ConnectOptions` or in the URL"
            ),
        ),
        ConnectErrorKind::Tls => (
            BrokerErrorKind::Configuration,
            format!("no TLS connection to {server}: correct the certificates given to `ConnectOptions`"),
        ),
        ConnectErrorKind::Io if !is_refused(&error) => (
            BrokerErrorKind::Unreachable,
            format!("what listens at {server} ended the connection: it is no NATS server, or only one side uses TLS"),
        ),
        ConnectErrorKind::TimedOut | ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            (
                BrokerErrorKind::Unreachable,
                format!("no NATS server answers at {server}: start nats-server there or correct the URL"),
            )
        }
    };
    let error_type = if error.kind() == ConnectErrorKind::TimedOut { TIMEOUT } else { OTHER };
    BrokerError::new(kind, error_type, message).with_source(error)
}

/// Tells whether nobody listened, as opposed to somebody who then went away.
fn is_refused(error: &ConnectError) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_none_or(|cause| {
        !matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        )
    })
}

/// Says why a subscription was refused by the client.
pub(crate) fn subscribe(error: async_nats::SubscribeError, subject: &str) -> BrokerError {
    match error.kind() {
        SubscribeErrorKind::InvalidSubject => {
            invalid_subscription(subject, "it has an empty token or white space").with_source(error)
        }
        SubscribeErrorKind::InvalidQueueName => invalid_group(subject).with_source(error),
        SubscribeErrorKind::Other => connection_ended(subject).with_source(error),
    }
}

/// Says which subject cannot be subscribed to.
pub(crate) fn invalid_subscription(subject: &str, why: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Configuration,
        INVALID_SUBJECT,
        format!("`{subject}` is not a subject to subscribe to, {why}: write tokens with dots between them"),
    )
}

/// Says that the name of a queue group would break the line it stands on.
pub(crate) fn invalid_group(subject: &str) -> BrokerError {
    BrokerError::configuration(format!("the queue group of `{subject}` is empty or has white space: correct its name"))
}

/// Says that the client's connection task is gone, of which the client itself says nothing.
// PROP-N-07.
pub(crate) fn connection_ended(subject: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Ended,
        SEND_FAILED,
        format!(
            "the subscription to `{subject}` ended because the client's connection is gone for good \
             (closed, out of reconnects, or ended by a header it cannot read): start the service again"
        ),
    )
}

/// Says that the server does not allow a subscription.
pub(crate) fn denied(subject: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Unauthorized,
        OTHER,
        format!(
            "the server does not allow this user to subscribe to `{subject}`: \
             add the subject to `permissions.subscribe` of the user, or connect as another one"
        ),
    )
}

/// Says why a settlement did not reach the server.
pub(crate) fn settle(error: impl Into<BoxError>) -> BrokerError {
    untold(BrokerErrorKind::Disconnected, SEND_FAILED).with_source(error)
}

/// Says that the server did not answer a settlement in time.
pub(crate) fn settle_unconfirmed(error: async_nats::RequestError) -> BrokerError {
    let (kind, error_type) = match error.kind() {
        RequestErrorKind::TimedOut => (BrokerErrorKind::Timeout, TIMEOUT),
        RequestErrorKind::NoResponders => (BrokerErrorKind::NotFound, NO_RESPONDERS),
        _ => (BrokerErrorKind::Disconnected, SEND_FAILED),
    };
    unconfirmed(kind, error_type).with_source(error)
}

/// Says why a settlement by a raw client failed; the error itself goes back to the caller.
pub(crate) fn raw_settle(error: &async_nats::Error) -> BrokerError {
    match error.downcast_ref::<io::Error>() {
        Some(failed) if failed.kind() == io::ErrorKind::TimedOut => unconfirmed(BrokerErrorKind::Timeout, TIMEOUT),
        Some(_) => untold(BrokerErrorKind::Other, OTHER),
        None => untold(BrokerErrorKind::Disconnected, SEND_FAILED),
    }
}

fn untold(kind: BrokerErrorKind, error_type: &'static str) -> BrokerError {
    let message = "the server could not be told how the message is settled: it will be delivered again";
    BrokerError::new(kind, error_type, message)
}

fn unconfirmed(kind: BrokerErrorKind, error_type: &'static str) -> BrokerError {
    let message = "the server did not confirm the settlement: the message may be delivered again";
    BrokerError::new(kind, error_type, message)
}

/// Says why a pull by a raw client failed; the error itself goes back to the caller.
pub(crate) fn raw_pull(error: &(dyn Error + 'static)) -> BrokerError {
    let is_unsent = error
        .downcast_ref::<pull::BatchError>()
        .is_some_and(|failed| matches!(failed.kind(), BatchErrorKind::Subscribe | BatchErrorKind::Flush));
    let (kind, error_type) =
        if is_unsent { (BrokerErrorKind::Disconnected, SEND_FAILED) } else { (BrokerErrorKind::Other, OTHER) };
    BrokerError::new(kind, error_type, "no messages could be pulled from the stream")
}

/// Says why a stream could not be looked up.
pub(crate) fn get_stream(error: context::GetStreamError, stream: &str) -> BrokerError {
    match error.kind() {
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            invalid_name("stream", stream).with_source(error)
        }
        GetStreamErrorKind::JetStream(server) if server.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            stream_missing(stream).with_source(error)
        }
        GetStreamErrorKind::JetStream(server) => from_server(&server, stream).with_source(error),
        GetStreamErrorKind::Request => {
            let request = error
                .source()
                .and_then(|source| source.downcast_ref::<context::RequestError>())
                .map(context::RequestError::kind);
            no_answer(request.as_ref(), stream).with_source(error)
        }
    }
}

/// Says why a stream could not be declared.
pub(crate) fn create_stream(error: context::CreateStreamError, stream: &str) -> BrokerError {
    match error.kind() {
        CreateStreamErrorKind::EmptyStreamName | CreateStreamErrorKind::InvalidStreamName => {
            invalid_name("stream", stream).with_source(error)
        }
        CreateStreamErrorKind::JetStreamUnavailable => jetstream_off().with_source(error),
        CreateStreamErrorKind::JetStream(server) => from_server(&server, stream).with_source(error),
        CreateStreamErrorKind::TimedOut => timed_out(stream).with_source(error),
        _ => other(stream).with_source(error),
    }
}

/// Says why a consumer could not be looked up.
pub(crate) fn consumer_info(error: context::ConsumerInfoError, stream: &str, consumer: &str) -> BrokerError {
    match error.kind() {
        ConsumerInfoErrorKind::InvalidName => invalid_name("durable consumer", consumer).with_source(error),
        ConsumerInfoErrorKind::NotFound => BrokerError::new(
            BrokerErrorKind::NotFound,
            OTHER,
            format!("consumer {consumer} of stream {stream} was deleted: start the service again to declare it anew"),
        )
        .with_source(error),
        ConsumerInfoErrorKind::StreamNotFound => stream_missing(stream).with_source(error),
        ConsumerInfoErrorKind::JetStream(server) => from_server(&server, stream).with_source(error),
        ConsumerInfoErrorKind::TimedOut => timed_out(stream).with_source(error),
        ConsumerInfoErrorKind::NoResponders => jetstream_off().with_source(error),
        ConsumerInfoErrorKind::Offline | ConsumerInfoErrorKind::Request => other(stream).with_source(error),
    }
}

/// Says why a consumer could not be declared.
pub(crate) fn create_consumer(error: stream::ConsumerError, stream: &str, consumer: &str) -> BrokerError {
    match error.kind() {
        ConsumerErrorKind::InvalidName => invalid_name("durable consumer", consumer).with_source(error),
        ConsumerErrorKind::JetStream(server) => from_server(&server, stream).with_source(error),
        ConsumerErrorKind::TimedOut => timed_out(stream).with_source(error),
        _ => other(stream).with_source(error),
    }
}

/// Says that messages cannot be published to a subject, because no stream takes it.
pub(crate) fn no_stream_takes(subject: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::NotFound,
        STREAM_NOT_FOUND,
        format!(
            "no stream takes the subject `{subject}`: add it to a stream, let a subscription of the service create one with \
             `Stream::new(\"..\").subjects([\"{subject}\"])`, or publish it without a stream with `CoreSubject`"
        ),
    )
}

/// Says why it is not known which stream takes a subject.
pub(crate) fn stream_by_subject(error: context::GetStreamByNameError, subject: &str) -> BrokerError {
    let request = error.source().and_then(|source| source.downcast_ref::<context::RequestError>());
    match request.map(context::RequestError::kind) {
        Some(context::RequestErrorKind::NoResponders) => jetstream_off().with_source(error),
        Some(context::RequestErrorKind::TimedOut) => no_answer_about(subject).with_source(error),
        _ => {
            let message = format!("the server does not say which stream takes the subject `{subject}`");
            BrokerError::new(BrokerErrorKind::Other, OTHER, message).with_source(error)
        }
    }
}

/// Says that the server says nothing about a subject.
pub(crate) fn no_answer_about(subject: &str) -> BrokerError {
    let message = format!(
        "the server did not say in time which stream takes the subject `{subject}`: perhaps this user may not publish to \
         `$JS.API.STREAM.NAMES`"
    );
    BrokerError::new(BrokerErrorKind::Timeout, TIMEOUT, message)
}

fn stream_missing(stream: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::NotFound,
        STREAM_NOT_FOUND,
        format!("stream {stream} does not exist: create it, or let the service do so with `Stream::subjects`"),
    )
}

fn jetstream_off() -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Unsupported,
        NO_RESPONDERS,
        "JetStream does not answer: start nats-server with -js, or switch JetStream on for the account",
    )
}

fn invalid_name(what: &str, name: &str) -> BrokerError {
    BrokerError::configuration(format!(
        "`{name}` cannot be the name of a {what}: use no dot, `*`, `>` or white space, and at least one letter"
    ))
}

fn no_answer(kind: Option<&context::RequestErrorKind>, stream: &str) -> BrokerError {
    match kind {
        Some(context::RequestErrorKind::NoResponders) => jetstream_off(),
        Some(context::RequestErrorKind::TimedOut) => timed_out(stream),
        _ => other(stream),
    }
}

fn timed_out(stream: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Timeout,
        TIMEOUT,
        format!("the server did not answer about stream {stream} in time"),
    )
}

fn other(stream: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Other, OTHER, format!("the request about stream {stream} failed"))
}

/// Takes over what the server said; it is written for people.
fn from_server(server: &async_nats::jetstream::Error, stream: &str) -> BrokerError {
    let kind = match server.code() {
        404 => BrokerErrorKind::NotFound,
        400 => BrokerErrorKind::Configuration,
        _ => BrokerErrorKind::Other,
    };
    BrokerError::new(kind, OTHER, format!("the server refused what was asked of stream {stream}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_server_is_told_from_wrong_credentials() {
        let unreachable = connect(ConnectError::new(ConnectErrorKind::Io), "localhost:4222");
        assert_eq!(unreachable.kind(), BrokerErrorKind::Unreachable);
        let refused = connect(ConnectError::new(ConnectErrorKind::AuthorizationViolation), "localhost:4222");
        assert_eq!(refused.kind(), BrokerErrorKind::Unauthorized);
        let unreadable = connect(ConnectError::new(ConnectErrorKind::ServerParse), "http://x");
        assert_eq!(unreadable.kind(), BrokerErrorKind::Configuration);
    }
}

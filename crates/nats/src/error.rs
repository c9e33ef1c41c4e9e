use std::error::Error;
use std::io;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, BatchErrorKind};
use async_nats::jetstream::context::{
    ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind, PublishError as StreamPublishError,
    PublishErrorKind as StreamPublishErrorKind,
};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{ErrorCode, context, stream};
use async_nats::{
    ConnectError, ConnectErrorKind, PublishErrorKind as ClientErrorKind, RequestErrorKind, SubscribeErrorKind,
};
use throughline_core::broker::{BrokerError, BrokerErrorKind, PublishError, PublishErrorKind};
use throughline_core::message::BoxError;

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

/// Says that the client's connection task is gone, of which the client itself says nothing (PROP-N-07).
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

/// Says why the client did not take a message. The caller adds the source, or returns it to a raw client.
pub(crate) fn publish(error: &async_nats::PublishError, subject: &str) -> PublishError {
    match error.kind() {
        ClientErrorKind::MaxPayloadExceeded => too_large(subject),
        ClientErrorKind::InvalidSubject => invalid_subject(subject, "it is empty or has white space"),
        ClientErrorKind::Send => disconnected(subject),
    }
}

/// Says why a stream did not take a message. The caller adds the source, or returns it to a raw client.
pub(crate) fn stream_publish(error: &StreamPublishError, subject: &str) -> PublishError {
    let (kind, error_type, message) = match error.kind() {
        StreamPublishErrorKind::StreamNotFound => (
            PublishErrorKind::NotFound,
            STREAM_NOT_FOUND,
            format!("no stream takes `{subject}`: declare one with that subject, or publish to core NATS"),
        ),
        StreamPublishErrorKind::WrongLastMessageId => (
            PublishErrorKind::Refused,
            WRONG_LAST_MESSAGE_ID,
            format!("the last message of the stream of `{subject}` has another id than expected"),
        ),
        StreamPublishErrorKind::WrongLastSequence => (
            PublishErrorKind::Refused,
            WRONG_LAST_SEQUENCE,
            format!("the last sequence of the stream of `{subject}` is another than expected"),
        ),
        StreamPublishErrorKind::TimedOut => (
            PublishErrorKind::Timeout,
            TIMEOUT,
            format!("the stream of `{subject}` did not confirm the message in time"),
        ),
        StreamPublishErrorKind::MaxAckPending => (
            PublishErrorKind::Unavailable,
            MAX_ACK_PENDING,
            format!("too many messages await the confirmation of their stream (`{subject}`)"),
        ),
        StreamPublishErrorKind::MaxPayloadExceeded => return too_large(subject),
        StreamPublishErrorKind::BrokenPipe => return disconnected(subject),
        StreamPublishErrorKind::Other => return stream_refused(error, subject),
    };
    PublishError::new(kind, error_type, message)
}

/// Looks into what the server said, where the client has no kind of its own for it.
fn stream_refused(error: &StreamPublishError, subject: &str) -> PublishError {
    let Some(source) = error.source() else { return disconnected(subject) };
    if source.is::<async_nats::SubjectError>() || source.is::<PublishError>() {
        return invalid_subject(subject, "it is empty or has white space");
    }
    let Some(answer) = source.downcast_ref::<async_nats::jetstream::Error>() else { return disconnected(subject) };
    let (kind, what) = match kind_of(answer.error_code(), &answer.to_string()) {
        PublishErrorKind::TooLarge => return too_large(subject),
        PublishErrorKind::Refused => (PublishErrorKind::Refused, "refused the message, and would again"),
        kind => (kind, "cannot take the message now"),
    };
    let message =
        format!("the stream of `{subject}` {what}: look at what the server says, and at the limits of the stream");
    PublishError::new(kind, OTHER, message)
}

/// Says whether a message that a stream did not store may be stored later. What is about the message itself, or about how the
/// stream is configured for such messages, does not pass; what is about room, leaders and restarts does. An answer that is not
/// known is tried again, for that loses nothing.
fn kind_of(code: ErrorCode, text: &str) -> PublishErrorKind {
    match code {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            PublishErrorKind::TooLarge
        }
        // Expectations, and headers by which a message asks for what the stream does not do.
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE
        | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
        | ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID
        | ErrorCode::STREAM_NOT_MATCH
        | ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID
        | ErrorCode::STREAM_ROLLUP_FAILED
        | ErrorCode::STREAM_SEALED
        | ErrorCode::MESSAGE_TTL_INVALID
        | ErrorCode::MESSAGE_TTL_DISABLED
        | ErrorCode::MESSAGE_INCR_DISABLED
        | ErrorCode::MESSAGE_INCR_MISSING
        | ErrorCode::MESSAGE_INCR_PAYLOAD
        | ErrorCode::MESSAGE_INCR_INVALID
        | ErrorCode::MESSAGE_SCHEDULES_DISABLED
        | ErrorCode::MESSAGE_SCHEDULES_PATTERN_INVALID
        | ErrorCode::MESSAGE_SCHEDULES_TARGET_INVALID
        | ErrorCode::MESSAGE_SCHEDULES_TTL_INVALID
        | ErrorCode::MESSAGE_SCHEDULES_ROLLUP_INVALID
        | ErrorCode::MESSAGE_SCHEDULES_SOURCE_INVALID
        | ErrorCode::MESSAGE_SCHEDULES_SCHEDULER_INVALID
        | ErrorCode::ATOMIC_PUBLISH_DISABLED
        | ErrorCode::ATOMIC_PUBLISH_MISSING_SEQ
        | ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH
        | ErrorCode::ATOMIC_PUBLISH_UNSUPPORTED_HEADER
        | ErrorCode::ATOMIC_PUBLISH_INVALID_BATCH_ID
        | ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH
        | ErrorCode::ATOMIC_PUBLISH_INVALID_BATCH_COMMIT
        | ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE
        | ErrorCode::BATCH_PUBLISH_DISABLED
        | ErrorCode::BATCH_PUBLISH_INVALID_PATTERN
        | ErrorCode::BATCH_PUBLISH_INVALID_BATCH_ID
        | ErrorCode::BATCH_PUBLISH_UNKNOWN_BATCH_ID
        | ErrorCode::BAD_REQUEST => PublishErrorKind::Refused,
        // The one code for all that the store says has only a text to tell them apart.
        ErrorCode::STREAM_STORE_FAILED if text.contains("too large") => PublishErrorKind::TooLarge,
        _ => PublishErrorKind::Unavailable,
    }
}

/// Says why a request got no reply. The caller adds the source, or returns it to a raw client.
pub(crate) fn request(error: &async_nats::RequestError, subject: &str, wait: Option<Duration>) -> PublishError {
    match error.kind() {
        RequestErrorKind::TimedOut => {
            let within = wait.map_or_else(|| "in time".to_owned(), |wait| format!("within {wait:?}"));
            PublishError::new(PublishErrorKind::Timeout, TIMEOUT, format!("no reply from `{subject}` {within}"))
        }
        RequestErrorKind::NoResponders => PublishError::new(
            PublishErrorKind::NotFound,
            NO_RESPONDERS,
            format!("nobody subscribes to `{subject}`: start the service that answers it or correct the subject"),
        ),
        RequestErrorKind::InvalidSubject => invalid_subject(subject, "it is empty or has white space"),
        RequestErrorKind::MaxPayloadExceeded => too_large(subject),
        RequestErrorKind::Other => disconnected(subject),
    }
}

/// Says that the server answered a request itself.
pub(crate) fn status_for_reply(subject: &str, status: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::Other,
        OTHER,
        format!(
            "the request to `{subject}` was answered with the status {status} in place of a reply: try again later"
        ),
    )
}

/// Says that the client took no more messages: its connection is down, and it has kept as many as it can.
pub(crate) fn no_room(subject: &str, waited: Duration) -> PublishError {
    PublishError::new(
        PublishErrorKind::Disconnected,
        TIMEOUT,
        format!(
            "the connection was down for {waited:?} and the client is full: the message to `{subject}` was not sent"
        ),
    )
}

/// Says that a published message was not written to the connection in time.
pub(crate) fn not_written(subject: &str, waited: Duration) -> PublishError {
    PublishError::new(
        PublishErrorKind::Disconnected,
        TIMEOUT,
        format!("the connection was down for {waited:?}: the message to `{subject}` is sent only if it comes back"),
    )
}

/// Says that a subject is no destination.
pub(crate) fn invalid_subject(subject: &str, why: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::InvalidDestination,
        INVALID_SUBJECT,
        format!(
            "`{subject}` is not a subject to publish to, {why}: write tokens with dots between them and no wildcard"
        ),
    )
}

/// Says that the connection is gone.
pub(crate) fn disconnected(subject: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::Disconnected,
        SEND_FAILED,
        format!("the message to `{subject}` was not sent, the client's connection is gone"),
    )
}

fn too_large(subject: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::TooLarge,
        MAX_PAYLOAD,
        format!(
            "the message to `{subject}` with its headers is larger than the server takes: \
             raise `max_payload` or send less"
        ),
    )
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

    #[test]
    fn a_core_publish_has_the_error_types_of_attr_n_10() {
        for (kind, expected) in [
            (ClientErrorKind::MaxPayloadExceeded, (PublishErrorKind::TooLarge, "max_payload_exceeded")),
            (ClientErrorKind::InvalidSubject, (PublishErrorKind::InvalidDestination, "invalid_subject")),
            (ClientErrorKind::Send, (PublishErrorKind::Disconnected, "send_failed")),
        ] {
            let error = publish(&async_nats::PublishError::new(kind), "orders");
            assert_eq!((error.kind(), error.error_type()), expected);
        }
    }

    #[test]
    fn a_request_has_the_error_types_of_attr_n_10() {
        for (kind, expected) in [
            (RequestErrorKind::TimedOut, (PublishErrorKind::Timeout, "timeout")),
            (RequestErrorKind::NoResponders, (PublishErrorKind::NotFound, "no_responders")),
            (RequestErrorKind::InvalidSubject, (PublishErrorKind::InvalidDestination, "invalid_subject")),
            (RequestErrorKind::MaxPayloadExceeded, (PublishErrorKind::TooLarge, "max_payload_exceeded")),
            (RequestErrorKind::Other, (PublishErrorKind::Disconnected, "send_failed")),
        ] {
            let error = request(&async_nats::RequestError::new(kind), "svc", Some(Duration::from_secs(1)));
            assert_eq!((error.kind(), error.error_type()), expected);
        }
    }

    #[test]
    fn a_stream_publish_has_the_error_types_of_attr_j_07() {
        for (kind, expected) in [
            (StreamPublishErrorKind::StreamNotFound, (PublishErrorKind::NotFound, "stream_not_found")),
            (StreamPublishErrorKind::WrongLastMessageId, (PublishErrorKind::Refused, "wrong_last_message_id")),
            (StreamPublishErrorKind::WrongLastSequence, (PublishErrorKind::Refused, "wrong_last_sequence")),
            (StreamPublishErrorKind::TimedOut, (PublishErrorKind::Timeout, "timeout")),
            (StreamPublishErrorKind::BrokenPipe, (PublishErrorKind::Disconnected, "send_failed")),
            (StreamPublishErrorKind::MaxAckPending, (PublishErrorKind::Unavailable, "max_ack_pending")),
            (StreamPublishErrorKind::MaxPayloadExceeded, (PublishErrorKind::TooLarge, "max_payload_exceeded")),
        ] {
            let error = stream_publish(&StreamPublishError::new(kind), "orders");
            assert_eq!((error.kind(), error.error_type()), expected);
        }
    }
}

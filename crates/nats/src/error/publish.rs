use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError as StreamPublishError, PublishErrorKind as StreamPublishErrorKind};
use async_nats::{PublishErrorKind as ClientErrorKind, RequestErrorKind};
use throughline_core::PublishError;
use throughline_core::broker::PublishErrorKind;

use super::{
    INVALID_SUBJECT, MAX_ACK_PENDING, MAX_PAYLOAD, NO_RESPONDERS, OTHER, SEND_FAILED, STREAM_NOT_FOUND, TIMEOUT,
    WRONG_LAST_MESSAGE_ID, WRONG_LAST_SEQUENCE,
};

/// Says why the client did not take a message. The caller adds the source, or returns it to a raw client.
pub(crate) fn publish(error: &async_nats::PublishError, subject: &str) -> PublishError {
    if let Some(own) = own(error) {
        return own;
    }
    match error.kind() {
        ClientErrorKind::MaxPayloadExceeded => too_large(subject),
        ClientErrorKind::InvalidSubject => invalid_subject(subject, "it is empty or has white space"),
        ClientErrorKind::Send => disconnected(subject),
    }
}

/// Returns what the adapter itself refused, which a raw client gets as the source of the client's error.
fn own(error: &dyn Error) -> Option<PublishError> {
    let own = error.source()?.downcast_ref::<PublishError>()?;
    Some(PublishError::new(own.kind(), own.error_type().to_owned(), own.to_string()))
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
    if let Some(own) = own(error) {
        return own;
    }
    let Some(source) = error.source() else { return disconnected(subject) };
    if source.is::<async_nats::SubjectError>() {
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
    if let Some(own) = own(error) {
        return own;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_a_stream_answers_is_permanent_where_the_same_message_is_refused_again() {
        for (code, text, kind) in [
            (ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM, "", PublishErrorKind::TooLarge),
            (ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM, "", PublishErrorKind::TooLarge),
            (ErrorCode::STREAM_STORE_FAILED, "message too large", PublishErrorKind::TooLarge),
            (ErrorCode::STREAM_STORE_FAILED, "maximum messages exceeded", PublishErrorKind::Unavailable),
            (ErrorCode::STREAM_SEALED, "", PublishErrorKind::Refused),
            (ErrorCode::STREAM_NOT_MATCH, "", PublishErrorKind::Refused),
            (ErrorCode::MESSAGE_TTL_DISABLED, "", PublishErrorKind::Refused),
            (ErrorCode::INSUFFICIENT_RESOURCES, "", PublishErrorKind::Unavailable),
            (ErrorCode::STORAGE_RESOURCES_EXCEEDED, "", PublishErrorKind::Unavailable),
            (ErrorCode::CLUSTER_NOT_LEADER, "", PublishErrorKind::Unavailable),
            (ErrorCode::STREAM_OFFLINE, "", PublishErrorKind::Unavailable),
            (ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT, "", PublishErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(code, text), kind, "{code:?} {text}");
        }
    }
}

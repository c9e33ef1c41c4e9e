mod cause;
mod names;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::error::Error as _;
use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};
use throughline_core::{BrokerError, PublishError};

use self::cause::{Cause, code_of};
pub(crate) use self::names::{OTHER, TIMEOUT};

/// `error.type` of a client that could not be created with its properties.
const CONFIGURATION: &str = "configuration";

/// `error.type` of a thread or callback of this crate that panicked.
pub(crate) const PANIC: &str = "panic";

/// `error.type` of what the client gave up because it was closed.
const CANCELED: &str = "canceled";

/// Returns the value of `error.type`: of a broker's error the name in the Kafka protocol, of the client's own one of a
/// fixed list.
// ATTR-K-12.
pub(crate) fn error_type(code: RDKafkaErrorCode) -> &'static str {
    let known = names::PROTOCOL.iter().chain(names::CLIENT);
    known.copied().find(|(known, _)| *known == code).map_or(OTHER, |(_, name)| name)
}

/// Says what went wrong with a connection or a subscription. The context says what was tried, such as "cannot subscribe
/// to `orders`".
pub(crate) fn broker(context: &str, error: &KafkaError) -> BrokerError {
    let cause = Cause::of(error);
    described(cause.broker_kind(), error, format!("{context}: {}", cause.advice()))
}

/// Says why a subscription ended.
pub(crate) fn ended(error: &KafkaError) -> BrokerError {
    use RDKafkaErrorCode::{BadCompression, BadMessage, InvalidMessage, NotImplemented, UnsupportedCompressionType};
    // The client says neither which record nor of which partition.
    let advice = match error.rdkafka_error_code() {
        Some(NotImplemented | UnsupportedCompressionType) => {
            "this build of the client cannot read a record; if it is compressed with zstd, build `throughline-kafka` with its feature \
             `zstd` and start again"
        }
        Some(BadCompression | BadMessage | InvalidMessage) => {
            "a record is damaged, on the broker or on the way: start again, and if that fails too, move the group past the record"
        }
        _ => return broker("the subscription ended", error),
    };
    let message = format!("the subscription ended: {advice}; nothing behind the record was handled or committed");
    described(Cause::of(error).broker_kind(), error, message)
}

/// Says that a message belongs to another member by now.
pub(crate) fn partition_lost(topic: &str, partition: i32) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Ended,
        "partition_lost",
        format!(
            "partition {partition} of topic `{topic}` is not this member's any more: the one that has it next gets the message again"
        ),
    )
}

/// Says that a topic was deleted under a running subscription.
pub(crate) fn topic_gone(topic: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::NotFound,
        error_type(RDKafkaErrorCode::UnknownTopicOrPartition),
        format!("the subscription ended: topic `{topic}` was deleted; create it again and start again"),
    )
}

/// Says that a callback of the client panicked.
pub(crate) fn panicked(what: &str) -> BrokerError {
    let message = format!("the handling of {what} panicked: see the message of the panic, and start again");
    BrokerError::new(BrokerErrorKind::Ended, PANIC, message)
}

/// Says that a topic is missing.
pub(crate) fn unknown_topic(topic: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::NotFound,
        error_type(RDKafkaErrorCode::UnknownTopicOrPartition),
        format!("topic `{topic}` does not exist: {}", how_to_create(topic)),
    )
}

/// Says that a topic is missing to which messages would be published.
pub(crate) fn missing_destination(topic: &str) -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::NotFound,
        error_type(RDKafkaErrorCode::UnknownTopicOrPartition),
        format!(
            "topic `{topic}` does not exist, and the brokers do not create it by themselves: {}, or set `auto.create.topics.enable` of \
             the brokers",
            how_to_create(topic)
        ),
    )
}

fn how_to_create(topic: &str) -> String {
    format!(
        "create it with `kafka-topics.sh --bootstrap-server HOST:9092 --create --topic {topic}`, or let the service do so with \
         `Topic::declare`"
    )
}

/// Says that a topic is missing, and that nobody says whether the brokers create it.
pub(crate) fn perhaps_missing(topic: &str, error: &KafkaError) -> BrokerError {
    let message = format!(
        "topic `{topic}` does not exist, and the brokers do not say whether they create it by themselves: {}",
        how_to_create(topic)
    );
    described(Cause::of(error).broker_kind(), error, message)
}

/// Says that nobody knows whether a topic exists.
pub(crate) fn not_looked_up(topic: &str, error: &KafkaError) -> BrokerError {
    broker(&format!("the brokers do not say whether topic `{topic}` exists"), error)
}

/// Says why a topic that is declared was not created.
pub(crate) fn not_created(topic: &str, error: &KafkaError) -> BrokerError {
    broker(&format!("topic `{topic}` could not be created"), error)
}

/// Says why no connection was made, and what to change.
pub(crate) fn connect(error: &KafkaError, servers: &str) -> BrokerError {
    let cause = Cause::of(error);
    let (kind, message) = match cause {
        Cause::Disconnected | Cause::Timeout => (
            BrokerErrorKind::Unreachable,
            format!("no Kafka server answers at {servers}: start it there or correct `bootstrap.servers`"),
        ),
        cause => (cause.broker_kind(), format!("no connection to {servers}: {}", cause.advice())),
    };
    described(kind, error, message)
}

/// Says why the server refused the connection: the credentials or the encryption.
pub(crate) fn refused(error: &KafkaError, reason: &str, servers: &str) -> BrokerError {
    let advice = Cause::Unauthorized.advice();
    described(BrokerErrorKind::Unauthorized, error, format!("no connection to {servers}: {advice} ({reason})"))
}

/// Says that messages were not confirmed before the end.
pub(crate) fn not_flushed(error: &KafkaError, unconfirmed: usize) -> BrokerError {
    let message = format!("{unconfirmed} messages were not confirmed by the brokers: they may not have been stored");
    described(Cause::of(error).broker_kind(), error, message)
}

/// Says that a message has no topic it could go to.
pub(crate) fn invalid_topic(topic: &str) -> PublishError {
    publish(&KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTopic), topic)
}

/// Says why a message was not published.
pub(crate) fn publish(error: &KafkaError, topic: &str) -> PublishError {
    let cause = Cause::of(error);
    let message = format!("the message to `{}` was not published: {}", topic.escape_debug(), cause.advice());
    PublishError::new(cause.publish_kind(), type_of(error), message).with_source(error.clone())
}

/// Tells whether a broker says something of a whole request: of its size, or of one message in it, whichever that is.
pub(crate) fn is_of_request(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::InvalidDifferentRecord;
    code == InvalidDifferentRecord || matches!(Cause::of_code(code), Cause::Refused | Cause::TooLarge)
}

/// The same, of a message that was not published.
pub(crate) fn may_be_of_request(failed: &PublishError) -> bool {
    let source = failed.source().and_then(|source| source.downcast_ref::<KafkaError>());
    source.and_then(KafkaError::rdkafka_error_code).is_some_and(is_of_request)
}

/// Says that a message was refused with others, so that nothing is known of it alone.
pub(crate) fn of_request(failed: PublishError) -> PublishError {
    let message =
        "the broker refused the request in which the message came, perhaps with others: it is to be sent alone";
    PublishError::new(PublishErrorKind::Unavailable, failed.error_type().to_owned(), message).with_source(failed)
}

/// Says that offsets were not committed.
pub(crate) fn commit(error: &KafkaError) -> BrokerError {
    let message = "the offsets were not committed: what was settled since the last commit may be delivered again";
    described(Cause::of(error).broker_kind(), error, message.to_owned())
}

/// Says that a subscription cannot go on with its transactions.
pub(crate) fn transaction(id: &str, error: &KafkaError) -> BrokerError {
    let cause = Cause::of(error);
    let message = match cause {
        Cause::Fenced => format!(
            "the transactional id `{id}` has another owner: another process or subscription uses the same id, or a handler \
             took longer than `transaction.timeout.ms`; give each subscription of each process an id of its own"
        ),
        cause => format!("the transactions of `{id}` cannot go on: {}", cause.advice()),
    };
    let error_type = match error.rdkafka_error_code() {
        // The client's own name for two errors of the protocol.
        Some(RDKafkaErrorCode::Fenced) => error_type(RDKafkaErrorCode::ProducerFenced),
        _ => type_of(error),
    };
    BrokerError::new(cause.broker_kind(), error_type, message).with_source(error.clone())
}

/// Says that a message is not settled as it was to be, since its transaction is aborted for another one.
pub(crate) fn taken_back() -> BrokerError {
    let message = "the transaction of its batch is aborted, and the messages of the batch come one by one";
    BrokerError::new(BrokerErrorKind::Other, "transaction_aborted", message)
}

/// Says that the last transaction is still open at the end.
pub(crate) fn not_aborted(id: &str) -> BrokerError {
    let message = format!(
        "the last transaction of `{id}` was not ended in time: readers wait until a start with the same id or \
         `transaction.timeout.ms` ends it"
    );
    BrokerError::new(BrokerErrorKind::Timeout, TIMEOUT, message)
}

/// Says that a message is published by nobody's handler.
pub(crate) fn no_transaction(topic: &str) -> PublishError {
    let message = format!(
        "the message to `{}` was not published: no message is being handled whose transaction it could be part of; publish before \
         the handler ends, or with a publisher of the connection",
        topic.escape_debug()
    );
    PublishError::new(PublishErrorKind::Unavailable, "no_transaction", message)
}

/// Says which property cannot be set, without its value: it may be a secret.
pub(crate) fn property(name: &str, why: &str) -> BrokerError {
    BrokerError::configuration(format!("the property `{name}` cannot be used: {why}"))
}

fn described(kind: BrokerErrorKind, error: &KafkaError, message: String) -> BrokerError {
    BrokerError::new(kind, type_of(error), message).with_source(error.clone())
}

fn type_of(error: &KafkaError) -> &'static str {
    match error {
        KafkaError::Canceled => CANCELED,
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Subscription(_) => CONFIGURATION,
        KafkaError::Nul(_) => error_type(RDKafkaErrorCode::InvalidArgument),
        error => code_of(error).map_or(OTHER, error_type),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode::*;

    use super::*;

    #[test]
    fn a_broker_error_has_the_name_of_the_protocol() {
        for (code, expected) in [
            (UnknownTopicOrPartition, "UNKNOWN_TOPIC_OR_PARTITION"),
            (NotEnoughReplicas, "NOT_ENOUGH_REPLICAS"),
            (MessageSizeTooLarge, "MESSAGE_TOO_LARGE"),
            (MessageBatchTooLarge, "RECORD_LIST_TOO_LARGE"),
            (NotLeaderForPartition, "NOT_LEADER_OR_FOLLOWER"),
            (InvalidTopic, "INVALID_TOPIC_EXCEPTION"),
            (InvalidMessage, "CORRUPT_MESSAGE"),
            (InvalidTransactionalState, "INVALID_TXN_STATE"),
            (Unknown, "UNKNOWN_SERVER_ERROR"),
        ] {
            assert_eq!(error_type(code), expected, "ATTR-K-12");
        }
    }

    #[test]
    fn every_code_of_the_protocol_that_the_client_knows_has_a_name() {
        // Codes are dense up to 97; each that the client knows has a text other than "Unknown".
        let numbers: Vec<i32> = names::PROTOCOL.iter().map(|(code, _)| *code as i32).collect();
        for number in -1..=97 {
            assert!(numbers.contains(&number), "no name for code {number}");
        }
        let mut names: Vec<&str> = names::PROTOCOL.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), names::PROTOCOL.len(), "each name stands for one code");
    }

    #[test]
    fn a_client_error_has_a_name_of_the_fixed_list() {
        for (code, expected) in [
            (MessageTimedOut, "timeout"),
            (QueueFull, "queue_full"),
            (BrokerTransportFailure, "transport"),
            (PurgeQueue, "purged"),
            (UnknownTopic, "UNKNOWN_TOPIC_OR_PARTITION"),
            (BadCompression, "_OTHER"),
        ] {
            assert_eq!(error_type(code), expected, "ATTR-K-12");
        }
        let is_listed = |name: &str| {
            name == "UNKNOWN_TOPIC_OR_PARTITION" || name.bytes().all(|sign| sign.is_ascii_lowercase() || sign == b'_')
        };
        assert!(names::CLIENT.iter().all(|(_, name)| is_listed(name)));
    }

    #[test]
    fn a_failed_publish_has_a_portable_kind() {
        for (code, expected) in [
            (UnknownTopic, PublishErrorKind::NotFound),
            (MessageSizeTooLarge, PublishErrorKind::TooLarge),
            (MessageTimedOut, PublishErrorKind::Timeout),
            (QueueFull, PublishErrorKind::Timeout),
            (TopicAuthorizationFailed, PublishErrorKind::Unauthorized),
            (NotEnoughReplicas, PublishErrorKind::Unavailable),
            (InvalidTopic, PublishErrorKind::InvalidDestination),
            (PurgeQueue, PublishErrorKind::Disconnected),
        ] {
            let error = publish(&KafkaError::MessageProduction(code), "orders");
            assert_eq!(error.kind(), expected, "{code:?}");
            assert_eq!(error.error_type(), error_type(code));
        }
    }

    /// A message that fails for such a reason is given up at once: it must be one of the message alone.
    #[test]
    fn only_what_is_said_of_the_message_itself_is_permanent() {
        let all = names::PROTOCOL.iter().chain(names::CLIENT).map(|(code, _)| *code);
        let permanent = all.filter(|code| publish(&KafkaError::MessageProduction(*code), "orders").is_permanent());
        let permanent: Vec<RDKafkaErrorCode> = permanent.collect();
        let expected = [
            MessageSizeTooLarge,
            InvalidTopic,
            MessageBatchTooLarge,
            InvalidTimestamp,
            UnsupportedVersion,
            UnsupportedForMessageFormat,
            PolicyViolation,
            UnsupportedCompressionType,
            InvalidRecord,
            NotImplemented,
            UnsupportedFeature,
        ];
        assert_eq!(permanent, expected);
    }

    /// Such an answer comes for every message of a request. What it says of one is known when that is sent alone.
    #[test]
    fn what_is_said_of_a_request_makes_no_message_permanent() {
        for code in [
            MessageSizeTooLarge,
            MessageBatchTooLarge,
            InvalidRecord,
            InvalidTimestamp,
            PolicyViolation,
            InvalidDifferentRecord,
        ] {
            let failed = publish(&KafkaError::MessageProduction(code), "orders");
            assert!(may_be_of_request(&failed), "{code:?}");
            let failed = of_request(failed);
            assert!(!failed.is_permanent(), "{code:?}");
            assert_eq!(failed.error_type(), error_type(code));
        }
        for code in [InvalidTopic, UnsupportedForMessageFormat, MessageTimedOut, NotEnoughReplicas] {
            assert!(!may_be_of_request(&publish(&KafkaError::MessageProduction(code), "orders")), "{code:?}");
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_from_one_that_refuses() {
        let unreachable = connect(&KafkaError::MetadataFetch(BrokerTransportFailure), "localhost:9092");
        assert_eq!(
            (unreachable.kind(), unreachable.error_type()),
            (BrokerErrorKind::Unreachable, "transport"),
            "{unreachable}"
        );
        let refused = connect(&KafkaError::Global(Authentication), "localhost:9092");
        assert_eq!(
            (refused.kind(), refused.error_type()),
            (BrokerErrorKind::Unauthorized, "authentication_failed"),
            "{refused}"
        );
    }

    #[test]
    fn a_record_that_cannot_be_read_says_what_to_do() {
        for (code, kind, advice) in [
            (NotImplemented, BrokerErrorKind::Unsupported, "`zstd`"),
            (UnsupportedCompressionType, BrokerErrorKind::Unsupported, "`zstd`"),
            (BadCompression, BrokerErrorKind::Other, "damaged"),
            (BadMessage, BrokerErrorKind::Other, "damaged"),
            (InvalidMessage, BrokerErrorKind::Other, "damaged"),
        ] {
            let error = ended(&KafkaError::MessageConsumption(code));
            assert_eq!(error.kind(), kind, "{code:?}");
            assert!(error.to_string().contains(advice), "{error}");
        }
    }

    #[test]
    fn a_subscription_that_is_fenced_has_ended() {
        let error = ended(&KafkaError::MessageConsumptionFatal(FencedInstanceId));
        assert_eq!((error.kind(), error.error_type()), (BrokerErrorKind::Ended, "FENCED_INSTANCE_ID"));
        let error = commit(&KafkaError::ConsumerCommit(RebalanceInProgress));
        assert_eq!((error.kind(), error.error_type()), (BrokerErrorKind::Other, "REBALANCE_IN_PROGRESS"));
    }
}

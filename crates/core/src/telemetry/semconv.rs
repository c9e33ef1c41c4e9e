//! The names of attributes, metrics and events: one constant each, from messaging conventions 1.44.0.

use opentelemetry::InstrumentationScope;

/// The schema the names belong to.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// The instrumentation scope of everything the framework emits.
pub const SCOPE_NAME: &str = "throughline";

/// The attribute `messaging.system`.
pub const MESSAGING_SYSTEM: &str = "messaging.system"; // ATTR-C-01
/// The attribute `messaging.operation.name`.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name"; // ATTR-C-02
/// The attribute `messaging.operation.type`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type"; // ATTR-C-03
/// The attribute `messaging.destination.name`.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name"; // ATTR-C-04
/// The attribute `messaging.destination.template`.
pub const MESSAGING_DESTINATION_TEMPLATE: &str = "messaging.destination.template"; // ATTR-C-05
/// The attribute `messaging.destination.partition.id`.
pub const MESSAGING_DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id"; // ATTR-C-06
/// The attribute `messaging.destination.temporary`.
pub const MESSAGING_DESTINATION_TEMPORARY: &str = "messaging.destination.temporary"; // ATTR-C-20
/// The attribute `messaging.destination.anonymous`.
pub const MESSAGING_DESTINATION_ANONYMOUS: &str = "messaging.destination.anonymous"; // ATTR-C-20
/// The attribute `messaging.destination.subscription.name`.
pub const MESSAGING_DESTINATION_SUBSCRIPTION_NAME: &str = "messaging.destination.subscription.name"; // ATTR-J-02
/// The attribute `messaging.consumer.group.name`.
pub const MESSAGING_CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name"; // ATTR-K-03, ATTR-N-05
/// The attribute `messaging.batch.message_count`.
pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count"; // ATTR-C-07
/// The attribute `messaging.message.id`.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id"; // ATTR-C-08
/// The attribute `messaging.message.conversation_id`.
pub const MESSAGING_MESSAGE_CONVERSATION_ID: &str = "messaging.message.conversation_id"; // ATTR-C-09
/// The attribute `messaging.client.id`.
pub const MESSAGING_CLIENT_ID: &str = "messaging.client.id"; // ATTR-C-10
/// The attribute `messaging.message.body.size`.
pub const MESSAGING_MESSAGE_BODY_SIZE: &str = "messaging.message.body.size"; // ATTR-C-16
/// The attribute `messaging.message.envelope.size`.
pub const MESSAGING_MESSAGE_ENVELOPE_SIZE: &str = "messaging.message.envelope.size"; // ATTR-C-16
/// The attribute `server.address`.
pub const SERVER_ADDRESS: &str = "server.address"; // ATTR-C-11
/// The attribute `server.port`.
pub const SERVER_PORT: &str = "server.port"; // ATTR-C-12
/// The attribute `error.type`.
pub const ERROR_TYPE: &str = "error.type"; // ATTR-C-15
/// The attribute `exception.type`.
pub const EXCEPTION_TYPE: &str = "exception.type"; // STAT-16
/// The attribute `exception.message`.
pub const EXCEPTION_MESSAGE: &str = "exception.message"; // STAT-16

/// The metric `messaging.client.operation.duration`.
pub const CLIENT_OPERATION_DURATION: &str = "messaging.client.operation.duration"; // METR-01
/// The metric `messaging.process.duration`.
pub const PROCESS_DURATION: &str = "messaging.process.duration"; // METR-02
/// The metric `messaging.client.sent.messages`.
pub const CLIENT_SENT_MESSAGES: &str = "messaging.client.sent.messages"; // METR-03
/// The metric `messaging.client.consumed.messages`.
pub const CLIENT_CONSUMED_MESSAGES: &str = "messaging.client.consumed.messages"; // METR-04

/// The project's own: seconds between the broker taking a message and its handler starting.
pub const QUEUE_DURATION: &str = "throughline.queue.duration";
/// The project's own: deliveries being handled right now.
pub const PROCESS_IN_FLIGHT: &str = "throughline.process.in_flight";
/// The project's own: messages by what became of them.
pub const SETTLED_MESSAGES: &str = "throughline.settled.messages";
/// The project's own: `ack`, `retry`, `reject` or `dead_letter`.
pub const SETTLEMENT: &str = "throughline.settlement";
/// The project's own: why a handler decided to reject.
pub const REJECTION_REASON: &str = "throughline.rejection.reason";
/// The project's own: which attempt at a message a span stands for, counted from 1.
pub const ATTEMPT: &str = "throughline.attempt"; // ATTR-C-27
/// The project's own: the `error.type` of the attempt before, on the span of the one that follows.
pub const RETRY_CAUSE: &str = "throughline.retry.cause"; // ATTR-C-28
/// The project's own: the seconds until the next attempt, on the settle span of a retry.
pub const RETRY_DELAY: &str = "throughline.retry.delay"; // ATTR-C-29
/// The project's own: where a message waited for its attempt, which is shown under the destination it first had.
pub const RETRY_DESTINATION: &str = "throughline.retry.destination"; // ATTR-C-30
/// The project's own: the code of the error reply that a request got.
pub const REPLY_ERROR_CODE: &str = "throughline.reply.error_code"; // ATTR-C-31
/// The project's own: a captured message header, followed by its name.
pub const HEADER_PREFIX: &str = "throughline.header.";
/// The project's own: a listed baggage entry, followed by its key.
pub const BAGGAGE_PREFIX: &str = "throughline.baggage.";

/// The boundaries of the histograms of durations, in seconds.
// METR-05.
pub const DURATION_BOUNDARIES: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The one scope of everything the framework emits.
// GEN-01, GEN-02.
pub(crate) fn instrumentation_scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE_NAME)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}

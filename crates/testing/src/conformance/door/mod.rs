//! The ways into the telemetry engine: the framework, the raw client of an adapter, and the engine itself.

mod engine;
mod framework;
mod job;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::SpanContext;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation;

pub use self::engine::EngineDoor;
pub use self::framework::FrameworkDoor;
pub use self::job::{GoldenError, Job, Work};
use super::{Harness, Spec};

/// A way into the telemetry engine that the golden table is held against. An adapter's test crate implements it for its raw-client
/// functions; [`FrameworkDoor`] and [`EngineDoor`] are there for every broker.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::{Ability, Door, EngineDoor, Harness};
///
/// fn pulls<H: Harness>() -> bool {
///     <EngineDoor<H> as Door<H>>::can(Ability::Pull)
/// }
/// ```
#[async_trait]
pub trait Door<H: Harness>: Send + Sync + Sized + 'static {
    /// Whether the framework does more than was asked: it settles, and retries.
    const KIND: DoorKind;

    /// Tells whether the door has a function for something.
    fn can(ability: Ability) -> bool;

    /// Opens the door on a connection of its own, with its telemetry made from `engine`.
    async fn open(harness: &H, engine: Instrumentation) -> Self;

    /// Publishes one message; fails with the text of the error.
    async fn send(&self, message: Message) -> Result<(), String>;

    /// Publishes several messages to one destination by one call.
    async fn send_batch(&self, messages: Vec<Message>) -> Result<(), String>;

    /// Publishes a request and waits for its reply.
    async fn request(&self, message: Message) -> Result<Bytes, String>;

    /// Begins to take messages and does with them what the job says, by [`Intake::finish`] at the latest.
    async fn take(&self, harness: &H, spec: &Spec, job: Job) -> Box<dyn Intake>;
}

/// The other half of [`Door::take`], called when the messages are published.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::Intake;
/// async fn to_the_end(intake: Box<dyn Intake>) {
///     intake.finish().await;
/// }
/// ```
#[async_trait]
pub trait Intake: Send {
    /// Ends when the job is done, everything is settled and the subscription is closed.
    async fn finish(self: Box<Self>);
}

/// What says whose functions a door has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DoorKind {
    /// `serve` and its handlers: settles, retries and forwards by itself.
    Framework,
    /// A client's functions with telemetry around them: what happens is what was called.
    Raw,
}

/// Something that not every door has a function for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ability {
    /// A span that is current before the message arrives.
    Ambient,
    /// Several messages processed by one call.
    Batch,
    /// An operation reported as failed that did not fail; for the engine's own door.
    Fault,
    /// A message forwarded with the context it has.
    Forward,
    /// A limit to the time of a handler.
    Limit,
    /// One message pulled by the application.
    Pull,
    /// Several messages pulled by one call.
    PullBatch,
    /// A settlement with telemetry that is no acknowledgement. A client that only moves its position has none.
    Reject,
    /// A request whose reply is awaited. A client that only publishes and consumes has no call for it.
    Request,
    /// Several messages published by one call.
    SendBatch,
    /// A settlement with telemetry.
    Settle,
    /// A creation context supplied by the caller.
    Supply,
}

/// A message on its way out, in the words every door understands.
///
/// # Examples
///
/// ```
/// let message = throughline_testing::conformance::Message::new("orders", "{}");
/// assert_eq!(message.destination, "orders");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// Where to.
    pub destination: String,
    /// The body.
    pub body: Bytes,
    /// The message id.
    pub id: Option<String>,
    /// The correlation id.
    pub correlation_id: Option<String>,
    /// The creation context of the caller's, which replaces one made by the door.
    pub supplied: Option<SpanContext>,
}

impl Message {
    /// Creates a message without ids.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = throughline_testing::conformance::Message::new("orders", "{}");
    /// assert!(message.id.is_none());
    /// ```
    #[must_use]
    pub fn new(destination: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { destination: destination.into(), body: body.into(), id: None, correlation_id: None, supplied: None }
    }

    pub(crate) fn creation(&self) -> CreationContext {
        self.supplied.clone().map_or(CreationContext::New, CreationContext::Given)
    }
}

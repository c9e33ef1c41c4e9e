use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use opentelemetry::Context;
use throughline_core::Settlement;
use throughline_core::telemetry::ParentMode;
use tokio::time::timeout;

use crate::conformance::wait::Seen;

/// How long a processing that never ends may go on.
const MOMENT: Duration = Duration::from_millis(50);

/// The error of the handlers in the golden table; its type is the expected `error.type`.
///
/// # Examples
///
/// ```
/// assert_eq!(throughline_testing::conformance::GoldenError.to_string(), "out of stock");
/// ```
#[derive(Clone, Copy)]
pub struct GoldenError;

impl fmt::Display for GoldenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of stock")
    }
}

impl fmt::Debug for GoldenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for GoldenError {}

/// What a handler does with its message or batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Work {
    /// Forwards the message unchanged, and is content.
    Bury {
        /// Where to.
        to: String,
    },
    /// Fails.
    Fail,
    /// Fails twice and then succeeds, within one delivery.
    FailTwice,
    /// Never ends: the framework limits its time, [`Job::drive`] drops it.
    Hang,
    /// Panics.
    Panic,
    /// Publishes a new message.
    Publish {
        /// Where to.
        to: String,
    },
    /// Replies to the requester.
    Reply,
    /// Settles the message so; one that comes again is acknowledged.
    Settle(Settlement),
    /// Succeeds.
    Succeed,
}

/// What a door does with the messages it takes.
///
/// A raw door takes `messages` messages, runs [`Job::run`] inside the process span (one span for all of them when it is a batch), and
/// settles with telemetry where [`Job::settlement`] says so, else plainly.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::Job;
/// async fn handle(job: &Job) -> bool {
///     job.run().await.is_ok()
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Job {
    /// What the handler does.
    pub work: Work,
    /// How many messages there will be.
    pub messages: usize,
    /// Whether they are handled together.
    pub batch: bool,
    /// Whether they are pulled by the application and not processed at all.
    pub pull: bool,
    /// Whether the pull or the settlement is to be reported as failed, with `error.type` = `timeout` ([`Ability::Fault`](super::Ability)).
    pub fault: bool,
    /// The parent of the process span.
    pub mode: ParentMode,
    /// A context that is current when the message arrives.
    pub ambient: Option<Context>,
    attempts: Arc<AtomicU32>,
    ended: Seen<()>,
}

impl Job {
    pub(crate) fn new(work: Work, messages: usize) -> Self {
        Self {
            work,
            messages,
            batch: false,
            pull: false,
            fault: false,
            mode: ParentMode::Auto,
            ambient: None,
            attempts: Arc::default(),
            ended: Seen::new(),
        }
    }

    /// Does the work of a handler; inside the process span it is what the user wrote.
    ///
    /// [`Work::Bury`], [`Work::Publish`], [`Work::Reply`] and [`Work::Settle`] are left to the door.
    ///
    /// # Errors
    ///
    /// Fails when the work is to fail.
    ///
    /// # Panics
    ///
    /// Panics when the work is to panic.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_testing::conformance::{GoldenError, Job};
    /// async fn handle(job: Job) -> Result<(), GoldenError> {
    ///     job.run().await
    /// }
    /// ```
    pub async fn run(&self) -> Result<(), GoldenError> {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
        let _ended = Ended(&self.ended);
        match self.work {
            Work::Fail => Err(GoldenError),
            Work::FailTwice if attempt < 3 => Err(GoldenError),
            Work::Hang => std::future::pending().await,
            Work::Panic => panic!("the handler of the golden table panics on purpose"),
            _ => Ok(()),
        }
    }

    /// Runs the processing of a message as a task of a service would, for a raw door: a panic ends it, and one that never ends is
    /// dropped after a moment.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::{Consumer, Incoming};
    /// use throughline_testing::conformance::Job;
    ///
    /// async fn process(job: &Job, consumer: &Consumer, message: &Incoming<'_>) {
    ///     job.drive(consumer.process(message).run(job.run())).await;
    /// }
    /// ```
    pub async fn drive<F: Future>(&self, processing: F) {
        let caught = AssertUnwindSafe(processing).catch_unwind();
        if self.work == Work::Hang {
            // Dropped: that is what the row is about.
            drop(timeout(MOMENT, caught).await);
        } else {
            drop(caught.await);
        }
    }

    /// Returns how the message is to be settled with telemetry: as the work says, and acknowledged when it comes again.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Settlement;
    /// use throughline_testing::conformance::Job;
    /// fn rejects(job: &Job) -> bool {
    ///     matches!(job.settlement(), Some(Settlement::Reject { .. }))
    /// }
    /// ```
    #[must_use]
    pub fn settlement(&self) -> Option<Settlement> {
        match &self.work {
            Work::Settle(_) if self.attempts.load(Ordering::SeqCst) > 1 => Some(Settlement::Ack),
            Work::Settle(settlement) => Some(settlement.clone()),
            _ => None,
        }
    }

    /// Waits until the handler has ended as often as it will.
    pub(crate) async fn done(&self) {
        self.ended.count(self.runs()).await;
    }

    /// How often a handler runs.
    pub(crate) fn runs(&self) -> usize {
        match &self.work {
            Work::FailTwice => 3,
            Work::Settle(Settlement::Retry { .. }) => 2,
            _ if self.batch => 1,
            _ => self.messages,
        }
    }
}

/// Counts the end of a handler, also of one that panics or is dropped.
struct Ended<'a>(&'a Seen<()>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.add(());
    }
}

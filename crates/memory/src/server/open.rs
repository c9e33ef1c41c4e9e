use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::RETRY_ERROR;
use throughline_core::{Delivery, Failure, Settlement};
use tokio::time::Instant;

/// A message that is not done, as [`Memory::open`](crate::Memory::open) shows it. As text it is a line for people.
///
/// # Examples
///
/// ```
/// use throughline_core::Envelope;
/// use throughline_core::broker::{Broker, Subscriber};
/// use throughline_memory::{Channel, Memory, OpenState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Memory::recording();
/// let _orders = memory.subscribe(&Channel::new("orders").group("stock").into()).await?;
/// memory.transport().publish(Envelope::new("orders", "{}")).await?;
/// let open = memory.open();
/// assert_eq!(open[0].state, OpenState::Queued);
/// assert_eq!(open[0].to_string(), "`orders` (group `stock`): waits for its handler");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenMessage {
    /// The message, with the attempt that runs or comes next.
    pub delivery: Delivery,
    /// What the subscription that gets it reads from, as it was written.
    pub subscription: Arc<str>,
    /// The group of that subscription.
    pub group: Option<Arc<str>>,
    /// Where the message is.
    pub state: OpenState,
    /// How many attempts have failed.
    pub failed: u32,
    /// What the last failed attempt said, with its causes; of a message that was forwarded by another process, its `error.type`.
    pub last_error: Option<String>,
}

/// Where a message is that is not done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenState {
    /// With its handler.
    Handled {
        /// For how long.
        since: Duration,
    },
    /// In the queue: the subscription has not taken it.
    Queued,
    /// Between two attempts.
    Waiting {
        /// How long until the next one.
        left: Duration,
    },
}

impl fmt::Display for OpenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.delivery.destination())?;
        match (&self.group, *self.subscription == *self.delivery.destination()) {
            (None, true) => {}
            (Some(group), true) => write!(f, " (group `{group}`)")?,
            (None, false) => write!(f, " (subscription to `{}`)", self.subscription)?,
            (Some(group), false) => write!(f, " (subscription to `{}`, group `{group}`)", self.subscription)?,
        }
        f.write_str(": ")?;
        if self.failed > 0 {
            match self.failed {
                1 => f.write_str("failed once")?,
                more => write!(f, "failed {more} times")?,
            }
            match &self.last_error {
                Some(error) => write!(f, ", last error `{error}`, ")?,
                None => f.write_str(", ")?,
            }
        }
        match self.state {
            OpenState::Handled { since } => write!(f, "its handler runs for {:?}", rounded(since)),
            OpenState::Queued => f.write_str("waits for its handler"),
            OpenState::Waiting { left } => write!(f, "next attempt in {:?}", rounded(left)),
        }
    }
}

impl fmt::Debug for OpenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// To milliseconds, never early.
fn rounded(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// What a queue knows of its messages beyond their places, by these; only where somebody may ask.
#[derive(Default)]
pub(super) struct Watched {
    handed_out: BTreeMap<u64, (Delivery, Instant)>,
    failures: BTreeMap<u64, Failed>,
}

/// The last failed attempt of a message.
struct Failed {
    attempt: u32,
    error: String,
    /// When the message is tried again, where it waits with its handler.
    next: Option<Instant>,
}

impl Watched {
    pub(super) fn handed_out(&mut self, place: u64, delivery: Delivery) {
        self.handed_out.insert(place, (delivery, Instant::now()));
    }

    /// A message is in its queue again.
    pub(super) fn put_back(&mut self, place: u64) {
        self.handed_out.remove(&place);
        if let Some(failed) = self.failures.get_mut(&place) {
            failed.next = None;
        }
    }

    pub(super) fn done(&mut self, place: u64) {
        self.handed_out.remove(&place);
        self.failures.remove(&place);
    }

    /// Notes a failed attempt.
    pub(super) fn failed(&mut self, place: u64, attempt: u32, error: String, next: &Settlement) {
        let next = match next {
            Settlement::Retry { after } => Instant::now().checked_add(after.unwrap_or_default()),
            _ => None,
        };
        self.failures.insert(place, Failed { attempt, error, next });
    }

    /// A failed message goes on at another place.
    pub(super) fn moved(&mut self, place: u64, to: u64) {
        if let Some(failed) = self.failures.remove(&place) {
            self.failures.insert(to, Failed { next: None, ..failed });
        }
    }

    /// Returns the messages that are with their handlers, with their places and states.
    pub(super) fn with_handlers(&self, now: Instant) -> impl Iterator<Item = (u64, Delivery, OpenState)> {
        self.handed_out.iter().map(move |(place, (delivery, since))| {
            let failed = self.failures.get(place);
            let next = failed.and_then(|failed| failed.next);
            let state = match next {
                Some(next) if next > now => OpenState::Waiting { left: next - now },
                next => OpenState::Handled { since: now.saturating_duration_since(next.unwrap_or(*since)) },
            };
            let attempt = failed.map_or(0, |failed| failed.attempt + 1).max(delivery.attempt());
            (*place, delivery.clone().with_attempt(attempt), state)
        })
    }

    /// Returns how many attempts of a message have failed, and why the last one did.
    pub(super) fn failures_of(&self, place: u64, delivery: &Delivery) -> (u32, Option<String>) {
        let before = delivery.attempt().saturating_sub(1);
        match self.failures.get(&place) {
            Some(failed) => (failed.attempt.max(before), Some(failed.error.clone())),
            None => (before, delivery.header_text(RETRY_ERROR).map(Cow::into_owned)),
        }
    }
}

/// The error and its causes in one line.
pub(super) fn text_of(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.error().source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

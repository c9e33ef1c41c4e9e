use std::time::{Duration, SystemTime};

use lapin::types::{AMQPValue, FieldTable};

use crate::carrier::{number, string};
use crate::properties::{millis, time};

/// The header in which the server notes why a message has left a queue, the last time first.
const DEATHS: &str = "x-death";

/// What stands between the name of a queue and the delay, in the name of a queue where its messages wait.
pub(crate) const DELAY_MARK: &str = ".retry.";

/// Why a message has left queues before, as the server notes it: it was rejected, expired, did not fit, or was delivered too often.
///
/// A message that was never dead-lettered has no entries. What a foreign client wrote into the header is read as far as it can be.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::Death;
///
/// async fn look(death: Death, order: String) {
///     if let Some(last) = death.entries.first() {
///         println!("{order} was dead-lettered {} times, last from {}: {:?}", death.count(), last.queue, last.reason);
///     }
/// }
/// # let _ = look;
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Death {
    /// One entry for each queue and reason, the last one first.
    pub entries: Vec<DeathEntry>,
    /// How it began; `None` where the server does not say.
    pub first: Option<FirstDeath>,
}

/// That a message has left a queue for a reason, once or several times.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeathEntry {
    /// The queue it left.
    pub queue: String,
    /// The exchange it had been published to; empty for the default exchange.
    pub exchange: String,
    /// The reason.
    pub reason: DeathReason,
    /// How often it has left the queue for that reason.
    pub count: u64,
    /// When it did so the first time, to the second.
    pub time: Option<SystemTime>,
    /// The routing keys it had been published with.
    pub routing_keys: Vec<String>,
    /// The expiration the message had, which the server takes away.
    pub original_expiration: Option<Duration>,
}

/// The queue a message left first, and why.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FirstDeath {
    /// The queue it left.
    pub queue: String,
    /// The exchange it had been published to; empty for the default exchange.
    pub exchange: String,
    /// The reason.
    pub reason: DeathReason,
}

/// Why a message has left a queue.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeathReason {
    /// A quorum queue has delivered it more often than its limit allows.
    DeliveryLimit,
    /// It waited longer than it may.
    Expired,
    /// The queue had no room for it.
    MaxLength,
    /// What the server says in other cases; empty where it says nothing.
    Other(String),
    /// A consumer rejected it.
    Rejected,
}

impl Default for DeathReason {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl From<&str> for DeathReason {
    fn from(reason: &str) -> Self {
        match reason {
            "delivery_limit" => Self::DeliveryLimit,
            "expired" => Self::Expired,
            "maxlen" => Self::MaxLength,
            "rejected" => Self::Rejected,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Death {
    /// Returns how often the message was dead-lettered, over all queues and reasons.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.count))
    }

    pub(crate) fn read(table: Option<&FieldTable>) -> Self {
        let text = |name| table.and_then(|table| text(table, name));
        let first = text("x-first-death-queue").map(|queue| FirstDeath {
            queue: queue.to_owned(),
            exchange: text("x-first-death-exchange").unwrap_or_default().to_owned(),
            reason: text("x-first-death-reason").unwrap_or_default().into(),
        });
        Self { entries: tables(table).map(DeathEntry::read).collect(), first }
    }
}

impl DeathEntry {
    fn read(table: &FieldTable) -> Self {
        let value = |name| table.inner().get(name);
        let text = |name| text(table, name).unwrap_or_default();
        let keys = match value("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => keys.as_slice(),
            _ => &[],
        };
        Self {
            queue: text("queue").to_owned(),
            exchange: text("exchange").to_owned(),
            reason: text("reason").into(),
            count: value("count").and_then(number).unwrap_or(1),
            time: match value("time") {
                Some(AMQPValue::Timestamp(seconds)) => time(*seconds),
                _ => None,
            },
            routing_keys: keys.iter().filter_map(utf8).map(str::to_owned).collect(),
            original_expiration: millis(text("original-expiration")),
        }
    }
}

/// Tells whether a message comes from a delay queue of a queue: it has waited there, and was nowhere else since.
pub(crate) fn has_waited(table: &FieldTable, queue: &str) -> bool {
    // Older servers say of the last time only what is first in the list.
    let last = || tables(Some(table)).next().and_then(|entry| text(entry, "queue"));
    text(table, "x-last-death-queue").or_else(last).is_some_and(|last| is_delay_of(last, queue))
}

/// Tells whether a name is that of a delay queue of a queue.
pub(crate) fn is_delay_of(name: &str, queue: &str) -> bool {
    name.strip_prefix(queue).is_some_and(|rest| rest.starts_with(DELAY_MARK))
}

fn tables(table: Option<&FieldTable>) -> impl Iterator<Item = &FieldTable> {
    let deaths = match table.and_then(|table| table.inner().get(DEATHS)) {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice(),
        _ => &[],
    };
    deaths.iter().filter_map(|death| match death {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    })
}

fn text<'a>(table: &'a FieldTable, name: &str) -> Option<&'a str> {
    table.inner().get(name).and_then(utf8)
}

fn utf8(value: &AMQPValue) -> Option<&str> {
    std::str::from_utf8(string(value)?).ok()
}

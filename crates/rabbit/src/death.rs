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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use lapin::types::FieldArray;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_table, table, text as string};

    fn array(values: Vec<AMQPValue>) -> AMQPValue {
        AMQPValue::FieldArray(FieldArray::from(values))
    }

    fn entry() -> AMQPValue {
        AMQPValue::FieldTable(table(&[
            ("count", AMQPValue::LongLongInt(2)),
            ("reason", string("expired")),
            ("queue", string("orders.retry.30s")),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("exchange", string("")),
            ("routing-keys", array(vec![string("orders.retry.30s"), AMQPValue::Void])),
            ("original-expiration", string("60000")),
        ]))
    }

    #[test]
    fn what_the_server_notes_is_read() {
        let table = table(&[
            ("x-death", array(vec![entry(), AMQPValue::FieldTable(table(&[("reason", string("delivery_limit"))]))])),
            ("x-first-death-queue", string("orders")),
            ("x-first-death-reason", string("rejected")),
            ("x-first-death-exchange", string("shop")),
        ]);
        let death = Death::read(Some(&table));
        let last = &death.entries[0];
        assert_eq!((last.queue.as_str(), last.exchange.as_str(), last.count), ("orders.retry.30s", "", 2));
        assert_eq!(
            (&last.reason, &last.routing_keys[..]),
            (&DeathReason::Expired, &["orders.retry.30s".to_owned()][..])
        );
        assert_eq!(last.time, Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert_eq!(last.original_expiration, Some(Duration::from_secs(60)));
        assert_eq!(death.entries[1].reason, DeathReason::DeliveryLimit);
        assert_eq!(death.count(), 3);
        let first = death.first.unwrap();
        assert_eq!((first.queue.as_str(), first.exchange.as_str()), ("orders", "shop"));
        assert_eq!(first.reason, DeathReason::Rejected);
    }

    #[test]
    fn of_foreign_nonsense_is_read_what_can_be() {
        assert_eq!(Death::read(None), Death::default());
        for nonsense in [string("rejected"), AMQPValue::LongInt(3), array(vec![string("x"), AMQPValue::Void])] {
            assert_eq!(Death::read(Some(&table(&[("x-death", nonsense)]))).entries, []);
        }
        let odd = table(&[
            ("count", AMQPValue::LongLongInt(-1)),
            ("reason", AMQPValue::Boolean(true)),
            ("queue", AMQPValue::LongString(vec![0xff].into())),
            ("time", AMQPValue::Timestamp(u64::MAX)),
            ("original-expiration", string("soon")),
            ("routing-keys", string("k")),
        ]);
        let death = Death::read(Some(&table(&[("x-death", array(vec![AMQPValue::FieldTable(odd), entry()]))])));
        assert_eq!(death.entries[0], DeathEntry { count: 1, ..DeathEntry::default() });
        assert_eq!(death.entries.len(), 2);
    }

    #[test]
    fn only_what_waited_last_in_a_delay_queue_of_the_queue_has_waited() {
        let died =
            |queue: &str| AMQPValue::FieldTable(table(&[("queue", string(queue)), ("reason", string("expired"))]));
        let old = |queues: &[&str]| table(&[("x-death", array(queues.iter().map(|queue| died(queue)).collect()))]);
        assert!(has_waited(&old(&["orders.retry.30s", "orders"]), "orders"));
        assert!(!has_waited(&old(&["orders", "orders.retry.30s"]), "orders"), "it was given up since");
        assert!(!has_waited(&old(&["bills.retry.30s"]), "orders") && !has_waited(&old(&["orders.retry"]), "orders"));
        let mut new = old(&["orders.retry.30s", "orders"]);
        new.insert("x-last-death-queue".into(), string("orders"));
        assert!(!has_waited(&new, "orders"), "newer servers say which was the last");
    }

    proptest! {
        #[test]
        fn nothing_a_stranger_sends_panics(table in any_table(), queue in "orders|.{0,4}") {
            let death = Death::read(Some(&table));
            let _ = death.count();
            let _ = has_waited(&table, &queue);
        }
    }
}

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Statistics;
use throughline_core::broker::ConnectionState;
use tracing::{info, warn};

/// How often the log repeats what goes on.
pub(crate) const REPEAT: Duration = Duration::from_secs(30);

/// How long nothing fails before the brokers count as back.
const CALM: Duration = Duration::from_secs(2);

/// Keeps the log of one client short while its brokers are away: a line when they go, one every half minute, and one when they are back.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    last: Option<Instant>,
    told: Option<Instant>,
    left_out: u64,
    /// Since when no broker at all is reached, and why.
    all_lost: Option<(Instant, String)>,
    /// Whether the client says which brokers it reaches. Without that, nobody would know when they are back.
    has_statistics: bool,
}

impl Outage {
    /// Notes that no broker at all is reached.
    pub(crate) fn note_all_lost(&self, reason: &str) {
        self.lock().all_lost.get_or_insert_with(|| (Instant::now(), reason.to_owned()));
    }

    /// Tells whether any broker is reached.
    pub(crate) fn connection(&self) -> ConnectionState {
        let state = self.lock();
        match state.all_lost.as_ref().filter(|_| state.has_statistics) {
            None => ConnectionState::Connected,
            Some((since, why)) => ConnectionState::Disconnected { since: *since, why: why.clone().into() },
        }
    }

    /// Notes that a broker was not reached.
    pub(crate) fn note_lost(&self, reason: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        state.last = Some(now);
        let is_first = state.since.is_none();
        let since = *state.since.get_or_insert(now);
        // Also where the brokers come and go all the time.
        if state.told.is_some_and(|told| now.duration_since(told) < REPEAT) {
            state.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut state.left_out);
        state.told = Some(now);
        drop(state);
        if is_first {
            warn!(target: "rdkafka", reason, left_out, "the brokers cannot be reached; the client tries again by itself");
        } else {
            let seconds = now.duration_since(since).as_secs();
            warn!(target: "rdkafka", reason, left_out, seconds, "the brokers still cannot be reached; the client tries on");
        }
    }

    /// Ends the outage where the client is connected to all brokers that it uses.
    pub(crate) fn note_brokers(&self, statistics: &Statistics) {
        let mut states = statistics.brokers.values().filter(|broker| broker.nodeid >= 0).map(|broker| &*broker.state);
        let is_away = |state: &str| matches!(state, "DOWN" | "TRY_CONNECT" | "CONNECT");
        let is_up = states.clone().any(|state| state == "UP" || state == "UPDATE");
        let mut state = self.lock();
        state.has_statistics = true;
        if is_up {
            state.all_lost = None;
        }
        drop(state);
        if is_up && !states.any(is_away) {
            self.note_back(Instant::now());
        }
    }

    fn note_back(&self, now: Instant) {
        let mut state = self.lock();
        let is_calm = state.last.is_none_or(|last| now.duration_since(last) >= CALM);
        let Some(since) = state.since.take_if(|_| is_calm) else { return };
        let left_out = std::mem::take(&mut state.left_out);
        // One that nobody was told of needs no end.
        let was_told = state.told.is_some_and(|told| told >= since);
        drop(state);
        if was_told {
            let seconds = now.duration_since(since).as_secs();
            info!(target: "rdkafka", left_out, seconds, "the brokers can be reached again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets through the first of lines that say the same, and then one every half minute.
#[derive(Debug)]
pub(crate) struct Repeats<K> {
    known: Mutex<Vec<(K, Instant, u64)>>,
}

/// How many different lines are known. More are let through as they come.
const MOST_KNOWN: usize = 256;

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<K: PartialEq> Repeats<K> {
    /// Returns how many were left out since the last one, where this one is to be said.
    pub(crate) fn admit(&self, what: K) -> Option<u64> {
        self.admit_at(what, Instant::now())
    }

    fn admit_at(&self, what: K, now: Instant) -> Option<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, told, left_out)) = known.iter_mut().find(|(known, ..)| *known == what) else {
            if known.len() < MOST_KNOWN {
                known.push((what, now, 0));
            }
            return Some(0);
        };
        if now.duration_since(*told) < REPEAT {
            *left_out += 1;
            return None;
        }
        *told = now;
        Some(std::mem::take(left_out))
    }

    /// Lets the next line through: what was said is over.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(state: &str) -> Statistics {
        let broker = rdkafka::statistics::Broker { nodeid: 1, state: state.to_owned(), ..Default::default() };
        Statistics { brokers: [("one".to_owned(), broker)].into(), ..Default::default() }
    }

    #[test]
    fn the_connection_is_lost_with_the_last_broker_and_back_with_the_first() {
        let outage = Outage::default();
        outage.note_lost("one of three");
        assert_eq!(outage.connection(), ConnectionState::Connected);
        outage.note_all_lost("3/3 brokers are down");
        outage.note_brokers(&statistics("TRY_CONNECT"));
        let ConnectionState::Disconnected { why, .. } = outage.connection() else { panic!("it is lost") };
        assert_eq!(why, "3/3 brokers are down");
        outage.note_brokers(&statistics("UP"));
        assert_eq!(outage.connection(), ConnectionState::Connected);
    }

    #[test]
    fn what_repeats_is_said_at_once_and_then_every_half_minute() {
        let (repeats, start) = (Repeats::default(), Instant::now());
        let said: Vec<_> = (0..70).map(|second| repeats.admit_at("a", start + Duration::from_secs(second))).collect();
        let expected = |second| match second {
            0 => Some(0),
            30 | 60 => Some(29),
            _ => None,
        };
        assert_eq!(said, (0..70).map(expected).collect::<Vec<_>>());
        assert_eq!(repeats.admit_at("b", start), Some(0), "each for itself");
        repeats.forget();
        assert_eq!(repeats.admit_at("a", start), Some(0));
    }
}

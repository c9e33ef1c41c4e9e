use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use throughline_core::Delivery;
use tokio::time::Instant;

/// Messages of one channel that wait for their next attempt, and are not settled meanwhile.
#[derive(Default)]
pub(super) struct Held {
    waiting: BinaryHeap<Reverse<Due>>,
    /// Those that are due, and are handed out again here.
    ready: VecDeque<Again>,
}

/// A message that is handed out again.
pub(super) struct Again {
    pub(super) tag: u64,
    pub(super) delivery: Delivery,
}

struct Due {
    at: Instant,
    tag: u64,
    /// `None` where the server delivers it again.
    delivery: Option<Delivery>,
}

impl Held {
    /// Counts those that wait, also for a handler.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    pub(super) fn hold(&mut self, tag: u64, at: Instant, delivery: Option<Delivery>) {
        self.waiting.push(Reverse(Due { at, tag, delivery }));
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(due)| due.at)
    }

    /// Makes those ready that are due, and returns the tags of those that the server is to deliver again.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<u64> {
        let mut of_server = Vec::new();
        while let Some(Reverse(due)) = self.waiting.peek()
            && due.at <= now
        {
            let Some(Reverse(Due { tag, delivery, .. })) = self.waiting.pop() else { break };
            match delivery {
                Some(delivery) => self.ready.push_back(Again { tag, delivery }),
                None => of_server.push(tag),
            }
        }
        of_server
    }

    pub(super) fn take_ready(&mut self) -> Option<Again> {
        self.ready.pop_front()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes all, for an end: the tags of those that the server counts, and of those it does not.
    pub(super) fn take_all(&mut self) -> (Vec<u64>, Vec<u64>) {
        let (mut counted, mut others) = (Vec::new(), Vec::new());
        for Reverse(Due { tag, delivery, .. }) in self.waiting.drain() {
            if delivery.is_some() { others.push(tag) } else { counted.push(tag) }
        }
        others.extend(self.ready.drain(..).map(|again| again.tag));
        (counted, others)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.tag) == (other.at, other.tag)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tag).cmp(&(other.at, other.tag))
    }
}

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use throughline_core::Destination;
use throughline_core::broker::Subscription;

use super::{Ledger, Member, Message, Queue};

/// How many names are remembered with their routes; computed names must not make it grow without end.
const REMEMBERED: usize = 1024;

/// Knows which queues a message goes to.
#[derive(Default)]
pub(super) struct Router {
    queues: Vec<Arc<Queue>>,
    /// Found once for each name, until a subscription comes or goes.
    routes: HashMap<Arc<str>, Receivers, BuildHasherDefault<NameHasher>>,
}

/// Hashes a name eight bytes at a time. Names come from the program itself, so nobody can choose them to collide.
#[derive(Default)]
struct NameHasher(u64);

impl NameHasher {
    const fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn finish(&self) -> u64 {
        // A product's high bits are the good ones; the map takes its place from the low ones.
        self.0 ^ (self.0 >> 32)
    }
}

/// Where messages sent to one name go.
struct Receivers {
    targets: Vec<Target>,
}

/// One subscription without a group, or one group.
struct Target {
    queue: Arc<Queue>,
    /// There are others only when subscriptions of one group have different patterns that match the same name.
    others: Vec<Arc<Queue>>,
    turn: AtomicUsize,
}

impl Router {
    pub(super) fn join(&mut self, subscription: &Subscription, ledger: &Arc<Ledger>) -> (Arc<Queue>, Member) {
        self.routes.clear();
        let shared = self.queues.iter().find(|queue| queue.is_shared_with(subscription));
        let queue = shared.cloned().unwrap_or_else(|| {
            let queue = Arc::new(Queue::new(subscription, ledger));
            self.queues.push(Arc::clone(&queue));
            queue
        });
        let member = queue.join();
        (queue, member)
    }

    pub(super) fn leave(&mut self, queue: &Arc<Queue>, member: Member) {
        if queue.leave(member) {
            self.routes.clear();
            if queue.group().is_none() {
                self.queues.retain(|other| !Arc::ptr_eq(other, queue));
                queue.close();
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.routes.clear();
        self.queues.iter().for_each(|queue| queue.end_members());
        for queue in self.queues.extract_if(.., |queue| queue.group().is_none()) {
            queue.close();
        }
    }

    pub(super) fn wake(&self) {
        self.queues.iter().for_each(|queue| queue.wake_all());
    }

    /// Puts a message into the queues of all that want it, and returns how many these are.
    #[inline]
    pub(super) fn deliver(&mut self, message: Message, ledger: &Ledger) -> usize {
        let Some(name) = message.plain_name() else {
            return self.find_route(&message.destination()).deliver(message, ledger);
        };
        if let Some(route) = self.routes.get(name) {
            return route.deliver(message, ledger);
        }
        if self.routes.len() >= REMEMBERED {
            self.routes.clear();
        }
        let destination = message.destination();
        let route = self.find_route(&destination);
        let name: Arc<str> = destination.name().into();
        let receivers = route.deliver(message, ledger);
        self.routes.insert(name, route);
        receivers
    }

    fn find_route(&self, destination: &Destination) -> Receivers {
        let mut targets: Vec<Target> = Vec::new();
        for queue in self.queues.iter().filter(|queue| queue.wants(destination)) {
            match targets.iter_mut().find(|target| target.is_of_group(queue)) {
                Some(target) => target.others.push(Arc::clone(queue)),
                None => targets.push(Target::new(Arc::clone(queue))),
            }
        }
        Receivers { targets }
    }
}

impl Receivers {
    #[inline]
    fn deliver(&self, message: Message, ledger: &Ledger) -> usize {
        let Some((last, others)) = self.targets.split_last() else { return 0 };
        ledger.opened(self.targets.len());
        if others.is_empty() {
            last.next_queue().push(message);
            return 1;
        }
        let delivery = message.into_delivery();
        for target in others {
            target.next_queue().push(Message::Delivery(delivery.clone()));
        }
        last.next_queue().push(Message::Delivery(delivery));
        self.targets.len()
    }
}

impl Target {
    const fn new(queue: Arc<Queue>) -> Self {
        Self { queue, others: Vec::new(), turn: AtomicUsize::new(0) }
    }

    fn is_of_group(&self, queue: &Queue) -> bool {
        queue.group().is_some() && self.queue.group() == queue.group()
    }

    /// Returns the queue whose turn it is.
    fn next_queue(&self) -> &Queue {
        if self.others.is_empty() {
            return &self.queue;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        self.others.get(turn).unwrap_or(&self.queue)
    }
}

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use throughline_core::broker::Subscription;

use super::{Ledger, Member, Queue};

/// How many names are remembered with their routes; computed names must not make it grow without end.
const REMEMBERED: usize = 1024;

/// Knows which queues a message goes to.
#[derive(Default)]
pub(super) struct Router {
    queues: Vec<Arc<Queue>>,
    /// Found once for each name, until a subscription comes or goes.
    routes: HashMap<Arc<str>, Arc<Route>, BuildHasherDefault<NameHasher>>,
}

/// Hashes a name eight bytes at a time. Names come from the program itself, so nobody can choose them to collide.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            if let Some(start) = word.get_mut(..chunk.len()) {
                start.copy_from_slice(chunk);
            }
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        // A product's high bits are the good ones; the map takes its place from the low ones.
        self.0 ^ (self.0 >> 32)
    }
}

/// Is where messages sent to one name go.
pub(crate) struct Route {
    targets: Vec<Target>,
}

/// Is one subscription without a group, or one group.
pub(super) struct Target {
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

    pub(super) fn route(&mut self, name: &str) -> Arc<Route> {
        if let Some(route) = self.routes.get(name) {
            return Arc::clone(route);
        }
        if self.routes.len() >= REMEMBERED {
            self.routes.clear();
        }
        let route = Arc::new(self.find_route(name));
        self.routes.insert(name.into(), Arc::clone(&route));
        route
    }

    fn find_route(&self, name: &str) -> Route {
        let mut targets: Vec<Target> = Vec::new();
        for queue in self.queues.iter().filter(|queue| queue.wants(name)) {
            match targets.iter_mut().find(|target| target.is_of_group(queue)) {
                Some(target) => target.others.push(Arc::clone(queue)),
                None => targets.push(Target::new(Arc::clone(queue))),
            }
        }
        Route { targets }
    }
}

impl Route {
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
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
    pub(super) fn next_queue(&self) -> &Queue {
        if self.others.is_empty() {
            return &self.queue;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        self.others.get(turn).unwrap_or(&self.queue)
    }
}

//! What a real adapter has on the other end of its connection: the broker itself.

mod inbox;
mod ledger;
mod queue;
mod router;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use throughline_core::Delivery;
use throughline_core::broker::Subscription;

use self::inbox::{Claimed, Inboxes};
pub(crate) use self::inbox::{Inbox, is_inbox};
pub(crate) use self::ledger::Ledger;
pub use self::ledger::SettledMessage;
pub(crate) use self::queue::{Held, Member, Queue, Taken, Turn};
use self::router::{Route, Router};

/// Says where a message goes.
pub(crate) enum Recipients {
    /// To subscriptions and groups, if there are any.
    Queues(Arc<Route>),
    /// To the one request whose reply it is.
    Request(Claimed),
}

/// Routes messages into queues and knows who takes from them.
pub(crate) struct Server {
    ledger: Arc<Ledger>,
    router: Mutex<Router>,
    inboxes: Inboxes,
}

impl Server {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger: Arc::new(ledger), router: Mutex::default(), inboxes: Inboxes::default() }
    }

    /// Adds a subscription; messages delivered from now on reach it.
    pub(crate) fn join(&self, subscription: &Subscription) -> (Arc<Queue>, Member) {
        lock(&self.router).join(subscription, &self.ledger)
    }

    /// Removes a subscription. Its queue stays for its group, or ends with it.
    pub(crate) fn leave(&self, queue: &Arc<Queue>, member: Member) {
        lock(&self.router).leave(queue, member);
    }

    /// Ends all subscriptions.
    pub(crate) fn stop(&self) {
        lock(&self.router).stop();
    }

    /// Finds who receives a message sent to `name`: all that subscribe to it, or the request that waits there.
    pub(crate) fn recipients(&self, name: &str) -> Recipients {
        match self.inboxes.claim(name) {
            Some(request) => Recipients::Request(request),
            None => Recipients::Queues(lock(&self.router).route(name)),
        }
    }

    /// Delivers a message and returns how many subscriptions, groups or requests get it.
    ///
    /// `make` is given the name as it is to stand in the delivery, and is not called when nobody listens.
    pub(crate) fn deliver(&self, recipients: Recipients, make: impl FnOnce() -> Delivery) -> usize {
        let route = match recipients {
            Recipients::Queues(route) => route,
            Recipients::Request(request) => return request.answer(make),
        };
        let Some((last, others)) = route.targets().split_last() else { return 0 };
        self.ledger.opened(route.targets().len());
        let delivery = make();
        for target in others {
            target.next_queue().push(delivery.clone());
        }
        last.next_queue().push(delivery);
        route.targets().len()
    }

    /// Opens a destination for the reply to one request.
    pub(crate) fn open_inbox(&self) -> Inbox<'_> {
        self.inboxes.open()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// Locks; a panic of another holder is its own affair, the data is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

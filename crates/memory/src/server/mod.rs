//! What a real adapter has on the other end of its connection: the broker itself.

mod connection;
mod inbox;
mod journal;
mod ledger;
mod lock;
mod message;
mod open;
mod queue;
mod router;

use std::sync::{Arc, Mutex};

use throughline_core::broker::Subscription;

pub(crate) use self::connection::{Connection, PublishFault};
use self::inbox::Inboxes;
pub(crate) use self::inbox::{Inbox, is_inbox};
pub use self::journal::SettledMessage;
pub(crate) use self::ledger::Ledger;
use self::lock::lock;
pub(crate) use self::message::Message;
pub use self::open::{OpenMessage, OpenState};
pub(crate) use self::queue::{Held, Member, Queue, Taken, Turn};
use self::router::Router;

/// Routes messages into queues and knows who takes from them.
pub(crate) struct Server {
    ledger: Arc<Ledger>,
    router: Mutex<Router>,
    inboxes: Inboxes,
}

impl Server {
    /// Creates a server; one that is `recording` remembers what becomes of each message.
    pub(crate) fn new(recording: bool) -> Self {
        Self { ledger: Arc::new(Ledger::new(recording)), router: Mutex::default(), inboxes: Inboxes::default() }
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

    /// Lets all who wait for a message look again at what they wait for.
    pub(crate) fn wake(&self) {
        lock(&self.router).wake();
    }

    /// Delivers a message to all that subscribe to its destination, or to the request that waits there; returns how many
    /// subscriptions, groups or requests get it.
    #[inline]
    pub(crate) fn deliver(&self, message: Message) -> usize {
        match message.plain_name().and_then(|name| self.inboxes.claim(name)) {
            Some(request) => request.answer(message.into_delivery()),
            None => lock(&self.router).deliver(message, &self.ledger),
        }
    }

    /// Opens a destination for the reply to one request.
    pub(crate) fn open_inbox(&self) -> Inbox<'_> {
        self.inboxes.open()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use throughline_core::Delivery;
use tokio::sync::oneshot;

use super::lock::lock;
use crate::semconv::INBOX;

/// Holds the requests that wait for a reply, by the name of the destination made for each.
#[derive(Default)]
pub(super) struct Inboxes {
    waiting: Mutex<HashMap<Arc<str>, oneshot::Sender<Delivery>>>,
    opened: AtomicU64,
}

impl Inboxes {
    pub(super) fn open(&self) -> Inbox<'_> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let name: Arc<str> = format!("{INBOX}.{number}").into();
        let (sender, reply) = oneshot::channel();
        lock(&self.waiting).insert(Arc::clone(&name), sender);
        Inbox { name, reply, inboxes: self }
    }

    /// Takes the request that waits at `name`: only the first reply counts.
    pub(super) fn claim(&self, name: &str) -> Option<Claimed> {
        if !is_inbox(name) {
            return None;
        }
        let sender = lock(&self.waiting).remove(name)?;
        Some(Claimed { sender })
    }
}

/// Tells whether a destination was made for the reply to a request.
pub(crate) fn is_inbox(name: &str) -> bool {
    name.strip_prefix(INBOX).is_some_and(|rest| rest.starts_with('.'))
}

/// A request about to be answered.
pub(crate) struct Claimed {
    sender: oneshot::Sender<Delivery>,
}

impl Claimed {
    /// Hands over the reply and returns how many got it: none when the request was given up.
    pub(super) fn answer(self, reply: Delivery) -> usize {
        usize::from(self.sender.send(reply).is_ok())
    }
}

/// A destination that exists until its reply has come or it is dropped.
pub(crate) struct Inbox<'a> {
    name: Arc<str>,
    reply: oneshot::Receiver<Delivery>,
    inboxes: &'a Inboxes,
}

impl Inbox<'_> {
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Waits for the reply. It is `None` only if the broker forgot the request, which it does not while this exists.
    pub(crate) async fn reply(&mut self) -> Option<Delivery> {
        (&mut self.reply).await.ok()
    }
}

impl Drop for Inbox<'_> {
    fn drop(&mut self) {
        lock(&self.inboxes.waiting).remove(&self.name);
    }
}

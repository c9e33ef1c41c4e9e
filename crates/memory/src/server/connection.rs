use std::borrow::Cow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use throughline_core::broker::{BrokerErrorKind, ConnectionState, Observe, PublishErrorKind};
use throughline_core::{BrokerError, Delivery, Settlement};
use tokio::sync::Notify;

use super::journal::{Journal, SettledMessage};
use super::lock::lock;
use super::{OpenMessage, Queue};

/// One connection to the server. A test can lose it, and make single calls on it fail.
#[derive(Default)]
pub(crate) struct Connection {
    is_lost: AtomicBool,
    /// Lost, and the client has given up.
    is_gone: AtomicBool,
    lost_at: Mutex<Option<Instant>>,
    changed: Notify,
    /// Whether any call is to fail; asked before the lock is taken.
    has_faults: AtomicBool,
    faults: Mutex<Faults>,
    observers: Mutex<Vec<Arc<dyn Observe>>>,
    journal: Option<Journal>,
    /// Those of its subscriptions.
    queues: Mutex<Vec<Weak<Queue>>>,
}

/// The calls that are to fail, by the name of the destination, in the order in which they were asked for.
#[derive(Default)]
struct Faults {
    publishes: Vec<(Arc<str>, PublishFault)>,
    settlements: Vec<(Arc<str>, BrokerErrorKind)>,
}

/// How a publish fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PublishFault {
    /// The broker does not take the message.
    Fails(PublishErrorKind),
    /// The connection is lost.
    Lost,
    /// The broker has the message, and its confirmation is lost.
    Unconfirmed,
}

impl Connection {
    pub(crate) fn new(recording: bool) -> Self {
        Self { journal: recording.then(Journal::default), ..Self::default() }
    }

    pub(crate) fn record(&self, delivery: &Delivery, settlement: &Settlement) {
        if let Some(journal) = &self.journal {
            journal.record(delivery, settlement);
        }
    }

    /// Returns the settlements so far; `None` when they are not remembered.
    pub(crate) fn settled(&self) -> Option<Vec<SettledMessage>> {
        self.journal.as_ref().map(Journal::settled)
    }

    /// Waits until `count` settlements are remembered; for ever, when none are.
    pub(crate) async fn settled_count(&self, count: usize) {
        match &self.journal {
            Some(journal) => journal.settled_count(count).await,
            None => std::future::pending().await,
        }
    }

    /// Notes where messages of a subscription are.
    pub(crate) fn subscribed(&self, queue: &Arc<Queue>) {
        let mut queues = lock(&self.queues);
        queues.retain(|known| known.strong_count() > 0);
        if !queues.iter().any(|known| known.as_ptr() == Arc::as_ptr(queue)) {
            queues.push(Arc::downgrade(queue));
        }
    }

    /// Returns the messages of its subscriptions that are not done; none where nothing is remembered.
    pub(crate) fn open(&self) -> Vec<OpenMessage> {
        let queues: Vec<_> = lock(&self.queues).iter().filter_map(Weak::upgrade).collect();
        queues.iter().flat_map(|queue| queue.open()).collect()
    }

    pub(crate) fn fail_publish(&self, name: Arc<str>, fault: PublishFault) {
        lock(&self.faults).publishes.push((name, fault));
        self.has_faults.store(true, Ordering::Release);
    }

    pub(crate) fn fail_settlement(&self, name: Arc<str>, kind: BrokerErrorKind) {
        lock(&self.faults).settlements.push((name, kind));
        self.has_faults.store(true, Ordering::Release);
    }

    /// Returns how a publish to a destination fails, if it does.
    pub(crate) fn publish_fault(&self, name: &str) -> Option<PublishFault> {
        if self.is_lost() {
            return Some(PublishFault::Lost);
        }
        self.next_fault(name, |faults| &mut faults.publishes)
    }

    /// Returns the error of a settlement of a message from a destination, if it fails.
    pub(crate) fn settle_error(&self, name: &str) -> Option<BrokerError> {
        if self.is_lost() {
            return Some(self.lost());
        }
        let kind = self.next_fault(name, |faults| &mut faults.settlements)?;
        let message = format!("the test made this settlement of a message from `{name}` fail");
        Some(BrokerError::new(kind, error_type(kind), message))
    }

    fn next_fault<F>(&self, name: &str, which: impl FnOnce(&mut Faults) -> &mut Vec<(Arc<str>, F)>) -> Option<F> {
        if !self.has_faults.load(Ordering::Acquire) {
            return None;
        }
        let mut faults = lock(&self.faults);
        let of_kind = which(&mut faults);
        let index = of_kind.iter().position(|(wanted, _)| **wanted == *name)?;
        let (_, fault) = of_kind.remove(index);
        let is_empty = faults.publishes.is_empty() && faults.settlements.is_empty();
        self.has_faults.store(!is_empty, Ordering::Release);
        Some(fault)
    }

    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Loses the connection, for ever or until [`restore`](Self::restore).
    pub(crate) fn lose(&self, for_good: bool) {
        lock(&self.lost_at).get_or_insert_with(Instant::now);
        self.is_gone.store(for_good, Ordering::Release);
        self.is_lost.store(true, Ordering::Release);
        self.changed.notify_waiters();
        self.tell_observers();
    }

    pub(crate) fn restore(&self) {
        *lock(&self.lost_at) = None;
        self.is_lost.store(false, Ordering::Release);
        self.is_gone.store(false, Ordering::Release);
        self.changed.notify_waiters();
        self.tell_observers();
    }

    pub(crate) fn state(&self) -> ConnectionState {
        match *lock(&self.lost_at) {
            None => ConnectionState::Connected,
            Some(_) if self.is_gone.load(Ordering::Acquire) => ConnectionState::Closed,
            Some(since) => ConnectionState::Disconnected { since, why: LOST },
        }
    }

    /// Waits until the connection is there.
    ///
    /// # Errors
    ///
    /// Fails when it is lost for good.
    pub(crate) async fn ready(&self) -> Result<(), BrokerError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.is_lost() {
                return Ok(());
            }
            self.check_hope()?;
            changed.await;
        }
    }

    /// Fails when the connection is lost for good.
    pub(crate) fn check_hope(&self) -> Result<(), BrokerError> {
        if self.is_gone.load(Ordering::Acquire) { Err(self.lost()) } else { Ok(()) }
    }

    pub(crate) fn lost(&self) -> BrokerError {
        let how = if self.is_gone.load(Ordering::Acquire) { "for good" } else { "until the test reconnects it" };
        let message = format!("the connection to the in-memory broker is lost {how}");
        BrokerError::new(BrokerErrorKind::Disconnected, "disconnected", message)
    }

    /// Adds who hears of the connection; one that is lost it hears of at once.
    pub(crate) fn observe(&self, observer: &Arc<dyn Observe>) {
        lock(&self.observers).push(Arc::clone(observer));
        if self.is_lost() {
            observer.degraded(Some(LOST));
        }
    }

    pub(crate) fn forget(&self, observer: &Arc<dyn Observe>) {
        lock(&self.observers).retain(|other| !Arc::ptr_eq(other, observer));
    }

    fn tell_observers(&self) {
        let why = self.is_lost().then_some(LOST);
        // Outside of the lock: they are not ours.
        let observers = lock(&self.observers).clone();
        observers.iter().for_each(|observer| observer.degraded(why.clone()));
    }
}

const LOST: Cow<'static, str> = Cow::Borrowed("the connection is lost");

/// `error.type` of a failure that a test asked for.
fn error_type(kind: BrokerErrorKind) -> &'static str {
    match kind {
        BrokerErrorKind::Configuration => "configuration",
        BrokerErrorKind::Disconnected => "disconnected",
        BrokerErrorKind::Ended => "ended",
        BrokerErrorKind::NotFound => "not_found",
        BrokerErrorKind::Timeout => "timeout",
        BrokerErrorKind::Unauthorized => "unauthorized",
        BrokerErrorKind::Unreachable => "unreachable",
        BrokerErrorKind::Unsupported => "unsupported",
        _ => "_OTHER",
    }
}

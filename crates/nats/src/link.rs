use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::connection::State;
use async_nats::{Client, jetstream};
use futures_util::FutureExt;
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, ConnectionState};
use tokio::sync::{mpsc, watch};

use crate::error;

/// How long one round trip to the server may take before it is no longer waited for.
const ROUND_TRIP_WAIT: Duration = Duration::from_secs(2);

type MakeContext = Box<dyn Fn(Client) -> jetstream::Context + Send + Sync>;

/// One client with its connection task, and the JetStream context on it.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    /// Counts the links of one [`Links`].
    number: u64,
}

impl Link {
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Tells whether the client's connection task has ended, of which its state says nothing.
    // PROP-N-07.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.client.flush().now_or_never(), Some(Err(_)))
    }

    /// Tells whether the client is connected, as far as it knows.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Tells whether the client has lost the connection it had; not before the first one.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.client.connection_state() == State::Disconnected
    }

    /// Counts how often the client has connected by itself.
    pub(crate) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Waits until the server has seen all that was sent before: it answers a request to an inbox that nobody has at
    /// once.
    ///
    /// A server that does not answer, because the credentials do not allow it, is not waited for any longer.
    pub(crate) async fn round_trip(&self) -> Result<(), BrokerError> {
        let request = async_nats::Request::new().timeout(Some(ROUND_TRIP_WAIT));
        let answered = self.client.send_request(self.client.new_inbox(), request).await;
        let timed_out = answered.is_err_and(|failed| failed.kind() == async_nats::RequestErrorKind::TimedOut);
        if self.is_gone() || (timed_out && !self.is_connected()) {
            return Err(BrokerError::new(
                BrokerErrorKind::Disconnected,
                error::SEND_FAILED,
                "the connection to NATS was lost: start nats-server again or correct the URL",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("number", &self.number).finish_non_exhaustive()
    }
}

/// How far the links of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// There will be no other link.
    Ended,
    /// The link of this number is in use.
    InUse(u64),
}

/// Holds the link in use, which is replaced when its connection task is lost.
// PROP-N-07.
pub(crate) struct Links {
    current: ArcSwap<Link>,
    phase: watch::Sender<Phase>,
    make_context: Mutex<MakeContext>,
    /// Since when the server is known to be away.
    lost: Mutex<Option<Instant>>,
    /// Where a lost link is reported; a client that is the user's own is not replaced.
    reports: Option<mpsc::UnboundedSender<u64>>,
}

impl Links {
    /// Uses a client of the user's own: how to connect again is not known.
    pub(crate) fn given(client: Client) -> Arc<Self> {
        Arc::new(Self::new(client, None))
    }

    pub(crate) fn new(client: Client, reports: Option<mpsc::UnboundedSender<u64>>) -> Self {
        let link = Link { jetstream: jetstream::new(client.clone()), client, number: 0 };
        Self {
            current: ArcSwap::from_pointee(link),
            phase: watch::Sender::new(Phase::InUse(0)),
            make_context: Mutex::new(Box::new(jetstream::new)),
            lost: Mutex::default(),
            reports,
        }
    }

    /// Returns what tells of every link that is put in use, and of the end.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<Link> {
        self.current.load_full()
    }

    /// Tells whether the server is reached. The client does not say since when it is not: it is noticed here, which the keeper of the
    /// connection asks all the time.
    pub(crate) fn connection(&self) -> ConnectionState {
        if *self.phase.borrow() == Phase::Ended {
            return ConnectionState::Closed;
        }
        let link = self.current();
        // Of a client without a connection nothing is asked: the questions would fill its queue.
        let is_reached = link.is_connected() && !link.is_gone();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if is_reached {
            *lost = None;
            return ConnectionState::Connected;
        }
        let since = *lost.get_or_insert_with(Instant::now);
        ConnectionState::Disconnected { since, why: "the server is away; the client connects again".into() }
    }

    /// Reports a link as lost and waits for the one after it; `None` when there will be none. Cancel safe.
    pub(crate) async fn after(&self, lost: &Link) -> Option<Arc<Link>> {
        // Fails when the renewal has ended, and with it the last phase has come.
        let _ = self.reports.as_ref()?.send(lost.number);
        let mut phase = self.phases();
        let is_past = |phase: &Phase| *phase != Phase::InUse(lost.number);
        let phase = *phase.wait_for(is_past).await.ok()?;
        (phase != Phase::Ended).then(|| self.current())
    }

    /// Makes JetStream contexts another way, from the link in use on.
    pub(crate) fn make_contexts(&self, make: MakeContext) {
        let mut make_context = self.make_context.lock().unwrap_or_else(PoisonError::into_inner);
        let link = self.current();
        let client = link.client.clone();
        self.current.store(Arc::new(Link { jetstream: make(client.clone()), client, number: link.number }));
        *make_context = make;
    }

    pub(crate) fn replace(&self, client: Client) {
        let make_context = self.make_context.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.current().number + 1;
        self.current.store(Arc::new(Link { jetstream: make_context(client.clone()), client, number }));
        self.phase.send_if_modified(|phase| {
            let goes_on = *phase != Phase::Ended;
            if goes_on {
                *phase = Phase::InUse(number);
            }
            goes_on
        });
    }

    /// Makes the link in use the last one.
    pub(crate) fn end(&self) {
        self.phase.send_replace(Phase::Ended);
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

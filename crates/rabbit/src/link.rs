use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant as Time};

use futures_util::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Connection, Event};
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, ConnectionState, Seldom};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::address::{all_shown, shown};
use crate::error;
use crate::options::RabbitOptions;

/// How long the first and the longest pause between two rounds of connection attempts are.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often the state of a connection is looked at, besides what it tells.
const LOOK: Duration = Duration::from_millis(250);

/// How long a connection that is given up may take to close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// One connection of the client, until it is lost.
pub(crate) struct Link {
    pub(crate) client: Connection,
    /// Counts the links of one [`Links`], from 1; 0 beside them.
    pub(crate) number: u64,
    /// Whether it is of no use although it is there: another one is made then, as where it is lost.
    pub(crate) given_up: Arc<GivenUp>,
}

impl Link {
    fn new(client: Connection, number: u64) -> Self {
        Self { client, number, given_up: Arc::default() }
    }
}

/// Why a link was given up, if it was.
#[derive(Default)]
pub(crate) struct GivenUp {
    why: OnceLock<&'static str>,
    noted: Notify,
}

impl GivenUp {
    pub(crate) fn note(&self, why: &'static str) {
        if self.why.set(why).is_ok() {
            self.noted.notify_one();
        }
    }

    pub(crate) fn why(&self) -> Option<&'static str> {
        self.why.get().copied()
    }
}

/// Holds the link in use, and makes another one when it is lost.
///
/// The client's own recovery stays off: it makes a queue that the server named under its old name, which is refused, leaves a consumer
/// silent after the error of a channel, knows one address, and gives no error for the one item that failed.
pub(crate) struct Links {
    what: &'static str,
    addresses: Vec<AMQPUri>,
    options: RabbitOptions,
    phase: watch::Sender<Phase>,
    blocked: watch::Sender<Option<(Time, Arc<str>)>>,
    silent: Mutex<Seldom>,
}

/// What is known of the connection.
#[derive(Clone)]
enum Phase {
    InUse(Arc<Link>),
    Lost { since: Time, why: Arc<str> },
    Closed,
}

impl Links {
    /// Connects, and keeps the connection. `what` names it for people: `publishing`, `consuming`.
    pub(crate) async fn open(
        what: &'static str,
        addresses: Vec<AMQPUri>,
        options: RabbitOptions,
    ) -> Result<Arc<Self>, BrokerError> {
        let client = connect(what, &addresses, &options).await?;
        let events = client.events_listener().boxed();
        let phase = watch::Sender::new(Phase::InUse(Arc::new(Link::new(client, 1))));
        let blocked = watch::Sender::new(None);
        let links = Arc::new(Self { what, addresses, options, phase, blocked, silent: Mutex::default() });
        tokio::spawn(keep(Arc::downgrade(&links), events));
        Ok(links)
    }

    /// Returns the link in use; `None` while there is none.
    pub(crate) fn current(&self) -> Option<Arc<Link>> {
        match &*self.phase.borrow() {
            Phase::InUse(link) => Some(Arc::clone(link)),
            Phase::Lost { .. } | Phase::Closed => None,
        }
    }

    /// Tells whether a link is in use and the server takes messages.
    pub(crate) fn is_usable(&self, link: &Link) -> bool {
        let is_in_use = matches!(&*self.phase.borrow(), Phase::InUse(used) if used.number == link.number);
        is_in_use && !self.is_blocked()
    }

    /// Waits for a link, without a limit. Fails when the connection was closed for good. Cancel safe.
    pub(crate) async fn connected(&self) -> Result<Arc<Link>, BrokerError> {
        let mut phases = self.phase.subscribe();
        let phase = phases.wait_for(|phase| !matches!(phase, Phase::Lost { .. })).await;
        match phase.as_deref() {
            Ok(Phase::InUse(link)) => Ok(Arc::clone(link)),
            _ => Err(closed()),
        }
    }

    /// Makes a connection beside this one, which nobody watches over: it closes when it is dropped.
    pub(crate) async fn beside(&self) -> Result<Arc<Link>, BrokerError> {
        if self.is_closed() {
            return Err(closed());
        }
        match connect(self.what, &self.addresses, &self.options).await {
            Ok(client) => Ok(Arc::new(Link::new(client, 0))),
            // Also one that is refused: the first one was not, so that it may pass.
            Err(failed) => {
                let error_type = failed.error_type().to_owned();
                Err(BrokerError::new(BrokerErrorKind::Disconnected, error_type, failed.to_string()))
            }
        }
    }

    /// Waits until the service closes the connection. Cancel safe.
    pub(crate) async fn closed(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Closed)).await;
    }

    /// Tells whether the server takes nothing at present (an alarm).
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.borrow().is_some()
    }

    /// Waits until the server takes messages. Cancel safe.
    pub(crate) async fn unblocked(&self) {
        let mut blocked = self.blocked.subscribe();
        let _ = blocked.wait_for(Option::is_none).await;
    }

    pub(crate) fn state(&self) -> ConnectionState {
        match &*self.phase.borrow() {
            Phase::Closed => ConnectionState::Closed,
            Phase::Lost { since, why } => ConnectionState::Disconnected { since: *since, why: why.to_string().into() },
            Phase::InUse(_) => match &*self.blocked.borrow() {
                Some((since, why)) => ConnectionState::Blocked { since: *since, why: why.to_string().into() },
                None => ConnectionState::Connected,
            },
        }
    }

    /// Closes the connection and makes no other one.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<(), BrokerError> {
        let Phase::InUse(link) = self.phase.send_replace(Phase::Closed) else { return Ok(()) };
        match timeout_at(deadline, link.client.close(200, "the service ends".into())).await {
            Ok(Ok(())) => Ok(()),
            // It is closed already.
            Ok(Err(_)) if !link.client.status().connected() => Ok(()),
            Ok(Err(failed)) => Err(error::broker(&failed, &format!("close the {} connection", self.what))),
            Err(_) => Err(error::unanswered(&format!("close the {} connection", self.what))),
        }
    }

    /// Notes the loss of a link.
    fn note_lost(&self, why: Arc<str>) {
        warn!(
            server = %all_shown(&self.addresses),
            connection = self.what,
            cause = %why,
            "the connection to RabbitMQ is lost: the adapter connects again"
        );
        self.note_unblocked();
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, Phase::Closed);
            if goes_on {
                *phase = Phase::Lost { since: Time::now(), why };
            }
            goes_on
        });
    }

    /// Tells that the server has confirmed nothing on a channel for so long.
    pub(crate) fn tell_silent(&self, waited: Duration) {
        let told = self.silent.lock().unwrap_or_else(PoisonError::into_inner).note(1);
        let Some(channels) = told else { return };
        warn!(
            server = %all_shown(&self.addresses),
            connection = self.what,
            ?waited,
            channels,
            "RabbitMQ confirms nothing on a channel: further messages go over another one"
        );
    }

    fn note_blocked(&self, reason: &str) {
        warn!(
            server = %all_shown(&self.addresses),
            connection = self.what,
            reason,
            "RabbitMQ takes no messages because of an alarm: publishes wait until it is over or their time is up"
        );
        self.blocked.send_replace(Some((Time::now(), format!("the server takes no messages: {reason}").into())));
    }

    fn note_unblocked(&self) {
        if let Some((since, _)) = self.blocked.send_replace(None) {
            let seconds = since.elapsed().as_secs();
            info!(server = %all_shown(&self.addresses), connection = self.what, seconds, "the alarm of RabbitMQ is over");
        }
    }

    fn is_closed(&self) -> bool {
        matches!(&*self.phase.borrow(), Phase::Closed)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("what", &self.what).field("state", &self.state()).finish_non_exhaustive()
    }
}

fn closed() -> BrokerError {
    BrokerError::new(
        BrokerErrorKind::Ended,
        "connection_lost",
        "the connection to RabbitMQ was closed by the service itself",
    )
}

type Events = futures_util::stream::BoxStream<'static, Event>;

/// Looks after the links until they are closed or nobody has them any more.
async fn keep(links: Weak<Links>, mut events: Events) {
    loop {
        let Some(link) = links.upgrade().and_then(|links| links.current()) else { return };
        let Some(why) = watch_over(&links, &link, &mut events).await else { return };
        let Some(kept) = links.upgrade() else { return };
        if kept.is_closed() {
            return;
        }
        kept.note_lost(why.into());
        // What still waits for an answer on it fails now, and not when the last one drops it.
        let _ = timeout(CLOSE_WAIT, link.client.close(200, "given up".into())).await;
        let number = link.number + 1;
        drop((link, kept));
        match again(&links, number).await {
            Some(next) => events = next,
            None => return,
        }
    }
}

/// Waits until a link is lost, and returns why; `None` where nobody needs it any more.
async fn watch_over(links: &Weak<Links>, link: &Link, events: &mut Events) -> Option<String> {
    let mut look = interval(LOOK);
    let mut last = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => links.upgrade()?.note_blocked(&reason),
                Some(Event::ConnectionUnblocked) => links.upgrade()?.note_unblocked(),
                // Those of channels come here, too.
                Some(Event::Error(failed)) if !failed.is_amqp_soft_error() => last = Some(failed),
                Some(_) => {}
                None => return Some(reason(last.as_ref())),
            },
            () = link.given_up.noted.notified() => return link.given_up.why().map(str::to_owned),
            _ = look.tick() => {}
        }
        let links = links.upgrade()?;
        if links.is_closed() {
            return None;
        }
        if !link.client.status().connected() {
            return Some(reason(last.as_ref()));
        }
    }
}

fn reason(failed: Option<&lapin::Error>) -> String {
    failed.map_or_else(|| "the server closed it".to_owned(), error::told)
}

/// Connects again, however long it takes; `None` where nobody needs it any more.
async fn again(links: &Weak<Links>, number: u64) -> Option<Events> {
    let (mut pause, mut attempts, began) = (FIRST_PAUSE, 0_u64, Time::now());
    loop {
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let kept = links.upgrade().filter(|links| !links.is_closed())?;
        attempts += 1;
        match connect(kept.what, &kept.addresses, &kept.options).await {
            Ok(client) => return kept.put_in_use(Link::new(client, number), began).await,
            // Often at first, then each time the number of attempts has doubled.
            Err(failed) if attempts.is_power_of_two() => warn!(
                server = %all_shown(&kept.addresses),
                connection = kept.what,
                attempts,
                seconds = began.elapsed().as_secs(),
                cause = %failed,
                "RabbitMQ cannot be reached: the adapter tries on"
            ),
            Err(failed) => debug!(cause = %failed, attempts, "RabbitMQ cannot be reached"),
        }
    }
}

impl Links {
    async fn put_in_use(&self, link: Link, lost: Time) -> Option<Events> {
        let events = link.client.events_listener().boxed();
        let link = Arc::new(link);
        let is_used = self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, Phase::Closed);
            if goes_on {
                *phase = Phase::InUse(Arc::clone(&link));
            }
            goes_on
        });
        if !is_used {
            let _ = timeout(CLOSE_WAIT, link.client.close(200, "the service ends".into())).await;
            return None;
        }
        let seconds = lost.elapsed().as_secs();
        info!(server = %all_shown(&self.addresses), connection = self.what, seconds, "connected to RabbitMQ again");
        Some(events)
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}

/// Tries each address once, beginning with any, and returns the first connection.
async fn connect(
    what: &'static str,
    addresses: &[AMQPUri],
    options: &RabbitOptions,
) -> Result<Connection, BrokerError> {
    let begin = fastrand::usize(..addresses.len().max(1));
    let mut told: Option<BrokerError> = None;
    for address in addresses.iter().cycle().skip(begin).take(addresses.len()) {
        let uri = options.apply(address.clone());
        let told_of = uri.clone();
        let runtime = lapin::runtime::default_runtime().map_err(|failed| error::broker(&failed, "connect"))?;
        let connecting =
            Connection::connect_uri_with_config(uri, options.properties(what), options.tls.clone(), runtime);
        let failed = match timeout(options.limits.answer, connecting).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(failed)) => error::connect(&failed, &told_of),
            Err(_) => error::no_handshake(&shown(address), options.limits.answer),
        };
        // A refusal says more than an address where nobody answers.
        if told.as_ref().is_none_or(|told| told.kind() == BrokerErrorKind::Unreachable) {
            told = Some(failed);
        }
    }
    Err(told.unwrap_or_else(closed))
}

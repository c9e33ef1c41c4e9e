use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::error::ServeError;
use super::vitals::Vitals;
use crate::broker::{Broker, ConnectionState, Subscription};
use crate::causes::Causes;
use crate::message::System;

/// The state of a service, for the probes of an orchestrator. Clones show the same one.
///
/// [`is_ready`](Self::is_ready) answers a readiness probe, [`is_live`](Self::is_live) a liveness probe. Displayed, it is a text of a few
/// lines that says why: one for each connection and each subscription.
///
/// # Examples
///
/// ```no_run
/// # use throughline_core::{App, broker::Broker, serve};
/// # async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
/// let service = serve(broker, app);
/// let health = service.health(); // for the HTTP server that answers the probes
/// assert!(health.is_live() && !health.is_ready());
/// println!("{health}");
/// service.await
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    has_started: bool,
    is_ending: bool,
    /// Why the service ends by itself.
    failure: Option<String>,
    connections: Vec<Connection>,
    subscriptions: Vec<(SubscriptionHealth, Arc<Vitals>)>,
}

#[derive(Clone)]
struct Connection {
    system: Option<Arc<System>>,
    broker: Weak<dyn Broker>,
}

/// The state of one connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionHealth {
    /// The messaging system, such as `nats`; `None` before the start.
    pub system: Option<String>,
    /// Its server, as `host:port`, where that is known.
    pub server: Option<String>,
    /// Whether the server is reached.
    pub state: ConnectionState,
}

/// The state of one subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionHealth {
    /// What it receives, as it was written.
    pub destination: String,
    /// Its group, queue group or durable name.
    pub group: Option<String>,
    /// What it does.
    pub state: HealthState,
    /// What the broker has given it, such as the partitions of a topic (`orders 0`). `None` where the broker has not yet, or divides
    /// nothing.
    pub assigned: Option<Vec<String>>,
    /// When its adapter has asked the broker for messages last, where it polls.
    pub last_polled: Option<Instant>,
    /// When the last message came.
    pub last_received: Option<Instant>,
    /// Whether what polls the broker has not done so for twice the time that it has: it hangs.
    pub hangs: bool,
}

/// What a subscription does.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HealthState {
    /// It takes messages, but something is wrong; the text says what.
    Degraded(Cow<'static, str>),
    /// It takes no more messages and finishes those it has.
    Draining,
    /// It takes messages.
    Ready,
    /// It is not active yet.
    Starting,
    /// It has ended.
    Stopped,
}

impl Health {
    /// Tells whether the service does its work: all subscriptions take messages, each connection reaches its server as far as that is
    /// known, and the end has not begun. A degraded subscription takes messages. A subscription without an assignment does too: while a
    /// group divides its partitions, no member has one.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let connections = self.connections();
        let is_lost = |one: &ConnectionHealth| {
            matches!(one.state, ConnectionState::Closed | ConnectionState::Disconnected { .. })
        };
        let inner = self.lock();
        let takes =
            |(one, _): &(SubscriptionHealth, _)| matches!(one.state, HealthState::Ready | HealthState::Degraded(_));
        inner.has_started
            && !inner.is_ending
            && inner.failure.is_none()
            && inner.subscriptions.iter().all(takes)
            && !connections.iter().any(is_lost)
    }

    /// Tells whether the service is alive; a process where it is not is to be started again. It is not when a part of it has failed, a
    /// subscription has ended though nothing told it to, or what polls the broker hangs.
    ///
    /// A lost connection is no reason: adapters connect again by themselves, and a restart would not bring the server back. Nor is a
    /// start that takes long, or an end that was asked for.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let inner = self.lock();
        let is_dead = |(one, vitals): &(SubscriptionHealth, Arc<Vitals>)| match one.state {
            HealthState::Stopped => !inner.is_ending,
            _ => vitals.hangs(),
        };
        inner.failure.is_none() && !inner.subscriptions.iter().any(is_dead)
    }

    /// Returns the state of each connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::ConnectionState;
    /// use throughline_core::serve::Health;
    ///
    /// fn is_reached(health: &Health) -> bool {
    ///     health.connections().iter().all(|one| one.state == ConnectionState::Connected)
    /// }
    /// ```
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionHealth> {
        // Without the lock: an adapter is asked.
        let connections = self.lock().connections.clone();
        let state =
            |one: &Connection| one.broker.upgrade().map_or(ConnectionState::Closed, |broker| broker.connection());
        let shown = |one: Connection| {
            let server = one.system.as_ref().and_then(|system| system.server()).map(|(host, port)| match port {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            });
            let system = one.system.as_ref().map(|system| system.name().to_owned());
            ConnectionHealth { state: state(&one), system, server }
        };
        connections.into_iter().map(shown).collect()
    }

    /// Returns the state of each subscription; none before the start.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::serve::Health;
    /// fn print(health: &Health) {
    ///     for one in health.subscriptions() { println!("{}: {:?}", one.destination, one.state); }
    /// }
    /// ```
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionHealth> {
        let inner = self.lock();
        let shown = |(own, vitals): &(SubscriptionHealth, Arc<Vitals>)| {
            let mut own = own.clone();
            own.last_polled = vitals.last_polled();
            own.last_received = vitals.last_received();
            own.hangs = own.state != HealthState::Stopped && vitals.hangs();
            if inner.is_ending && own.state != HealthState::Stopped {
                own.state = HealthState::Draining;
            }
            own
        };
        inner.subscriptions.iter().map(shown).collect()
    }

    pub(super) fn connects(&self, broker: &Arc<dyn Broker>) {
        self.lock().connections.push(Connection { system: None, broker: Arc::downgrade(broker) });
    }

    /// Says what a connection leads to.
    pub(super) fn names(&self, connection: usize, system: &Arc<System>) {
        if let Some(own) = self.lock().connections.get_mut(connection) {
            own.system.get_or_insert_with(|| Arc::clone(system));
        }
    }

    pub(super) fn starts(&self, subscription: &Subscription) -> Place {
        let vitals = Arc::new(Vitals::new());
        let mut inner = self.lock();
        let own = SubscriptionHealth {
            destination: subscription.destination().to_owned(),
            group: subscription.group().or(subscription.name()).map(str::to_owned),
            state: HealthState::Starting,
            assigned: None,
            last_polled: None,
            last_received: None,
            hangs: false,
        };
        inner.subscriptions.push((own, Arc::clone(&vitals)));
        Place { health: self.clone(), index: inner.subscriptions.len() - 1, vitals }
    }

    fn change(&self, subscription: usize, change: impl FnOnce(&mut SubscriptionHealth)) {
        if let Some((own, _)) = self.lock().subscriptions.get_mut(subscription) {
            change(own);
        }
    }

    pub(super) fn has_started(&self) {
        self.lock().has_started = true;
    }

    /// Notes that the end begins.
    pub(super) fn is_ending(&self) {
        self.lock().is_ending = true;
    }

    /// Notes that the service ends because a part of it has failed.
    pub(super) fn fails(&self, what: &str) {
        self.lock().failure = Some(what.to_owned());
    }

    /// Says better why the service has failed, if it has.
    pub(super) fn explain(&self, error: Option<&ServeError>) {
        if let (Some(failure), Some(error)) = (&mut self.lock().failure, error) {
            *failure = Causes(error).to_string();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one subscription in the health of its service.
#[derive(Clone)]
pub(super) struct Place {
    health: Health,
    index: usize,
    vitals: Arc<Vitals>,
}

impl Place {
    pub(super) fn set(&self, state: HealthState) {
        self.health.change(self.index, |own| {
            if own.state != HealthState::Stopped {
                own.state = state;
            }
        });
    }

    /// Says what the subscription was given to receive from.
    pub(super) fn assigned(&self, parts: Vec<String>) {
        self.health.change(self.index, |own| own.assigned = Some(parts));
    }

    /// Notes a poll, and within what time the next one comes.
    pub(super) fn polled(&self, again_within: Duration) {
        self.vitals.note_polled(again_within);
    }

    /// Notes that a message has come.
    pub(super) fn received(&self) {
        self.vitals.note_received();
    }
}

/// Shows a subscription as stopped when it is dropped, however that came.
pub(super) struct Stops(pub(super) Place);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.set(HealthState::Stopped);
    }
}

/// The body of a probe's answer.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |is: bool| if is { "yes" } else { "no" };
        write!(f, "ready: {}\nlive: {}", yes(self.is_ready()), yes(self.is_live()))?;
        let failure = self.lock().failure.clone();
        if let Some(failure) = failure {
            write!(f, "\nfailed: {failure}")?;
        }
        self.connections().iter().try_for_each(|one| write!(f, "\n{one}"))?;
        self.subscriptions().iter().try_for_each(|one| write!(f, "\n{one}"))
    }
}

impl fmt::Display for ConnectionHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection")?;
        [&self.system, &self.server].into_iter().flatten().try_for_each(|name| write!(f, " {name}"))?;
        match &self.state {
            ConnectionState::Blocked { since, why } => {
                write!(f, ": blocked for {} s: {why}", since.elapsed().as_secs())
            }
            ConnectionState::Closed => write!(f, ": closed"),
            ConnectionState::Connected => write!(f, ": connected"),
            ConnectionState::Disconnected { since, why } => {
                write!(f, ": disconnected for {} s: {why}", since.elapsed().as_secs())
            }
            ConnectionState::Unknown => write!(f, ": in use"),
        }
    }
}

impl fmt::Display for SubscriptionHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription {}", self.destination)?;
        if let Some(group) = &self.group {
            write!(f, " ({group})")?;
        }
        match &self.state {
            HealthState::Degraded(why) => write!(f, ": degraded: {why}")?,
            HealthState::Draining => write!(f, ": draining")?,
            HealthState::Ready => write!(f, ": ready")?,
            HealthState::Starting => write!(f, ": starting")?,
            HealthState::Stopped => write!(f, ": stopped")?,
        }
        match self.assigned.as_deref() {
            None => {}
            Some([]) => write!(f, "; nothing assigned")?,
            Some(parts) => write!(f, "; assigned {}", parts.join(", "))?,
        }
        if let Some(last) = self.last_polled {
            let hangs = if self.hangs { " and hangs" } else { "" };
            write!(f, "; polled {} s ago{hangs}", last.elapsed().as_secs())?;
        }
        match self.last_received {
            Some(last) => write!(f, "; received {} s ago", last.elapsed().as_secs()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("connections", &self.connections())
            .field("subscriptions", &self.subscriptions())
            .finish_non_exhaustive()
    }
}

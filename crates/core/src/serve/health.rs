use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::broker::{BrokerError, Observe, Subscription};
use crate::telemetry::Consumer;

/// The state of a served app, for the probes of an orchestrator. Clones show the same app.
///
/// # Examples
///
/// ```no_run
/// # use throughline_core::{App, broker::Broker, serve};
/// # async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
/// let service = serve(broker, app);
/// let health = service.health(); // for the HTTP server that answers the probes
/// assert!(!health.is_ready());
/// service.await
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    has_started: bool,
    is_ending: bool,
    subscriptions: Vec<SubscriptionHealth>,
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
    /// Tells whether the app has started, takes messages with all of its subscriptions, and is not about to end. A degraded one takes
    /// messages.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = self.lock();
        let takes = |one: &SubscriptionHealth| matches!(one.state, HealthState::Ready | HealthState::Degraded(_));
        inner.has_started && !inner.is_ending && inner.subscriptions.iter().all(takes)
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
        let mut subscriptions = inner.subscriptions.clone();
        for one in subscriptions.iter_mut().filter(|one| inner.is_ending && one.state != HealthState::Stopped) {
            one.state = HealthState::Draining;
        }
        subscriptions
    }

    pub(super) fn starts(&self, subscription: &Subscription) -> Place {
        let mut inner = self.lock();
        inner.subscriptions.push(SubscriptionHealth {
            destination: subscription.destination().to_owned(),
            group: subscription.group().or(subscription.name()).map(str::to_owned),
            state: HealthState::Starting,
        });
        Place { health: self.clone(), index: inner.subscriptions.len() - 1 }
    }

    pub(super) fn has_started(&self) {
        self.lock().has_started = true;
    }

    pub(super) fn is_ending(&self) {
        self.lock().is_ending = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one subscription in the health of its app.
#[derive(Clone)]
pub(super) struct Place {
    health: Health,
    index: usize,
}

impl Place {
    pub(super) fn set(&self, state: HealthState) {
        if let Some(own) = self.health.lock().subscriptions.get_mut(self.index)
            && own.state != HealthState::Stopped
        {
            own.state = state;
        }
    }
}

/// Shows a subscription as stopped when it is dropped, however that came.
pub(super) struct Stops(pub(super) Place);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.set(HealthState::Stopped);
    }
}

/// Hears what an adapter does by itself: for the telemetry of the app, where it has any, and for its health.
pub(super) struct Observer {
    pub(super) consumer: Option<Consumer>,
    pub(super) place: Place,
}

impl Observe for Observer {
    fn meter(&self) -> Option<Meter> {
        Observe::meter(self.consumer.as_ref()?)
    }

    fn settled(
        &self,
        started: Instant,
        destination: Option<&str>,
        attributes: Vec<KeyValue>,
        error: Option<&BrokerError>,
    ) {
        if let Some(consumer) = &self.consumer {
            Observe::settled(consumer, started, destination, attributes, error);
        }
    }

    fn degraded(&self, why: Option<Cow<'static, str>>) {
        self.place.set(why.map_or(HealthState::Ready, HealthState::Degraded));
    }
}

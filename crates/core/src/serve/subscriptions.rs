use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::alarm::{Alarm, Cause};
use super::dispatch::Dispatcher;
use super::error::{ServeError, ServeErrorKind};
use super::handling::Stages;
use super::health::{Health, HealthState, Place, Stops};
use super::observer::Observer;
use super::phase::Phase;
use super::worker::Worker;
use super::{checks, destinations};
use crate::app::{App, Entry};
use crate::broker::{Broker, BrokerError, BrokerErrorKind, Reception, RouteOfApp};
use crate::log::SubscriptionLog;
use crate::telemetry::Instrumentation;

/// One app and its broker.
pub(super) struct Served {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) app: App,
}

/// The subscriptions of a service, and what they have in common.
pub(super) struct Subscriptions {
    /// Those that are active and whose worker does not run yet.
    active: Vec<Active>,
    pub(super) phase: watch::Sender<Phase>,
    cause: mpsc::UnboundedSender<Cause>,
    pub(super) limit: Duration,
    pub(super) health: Health,
    /// Known to the other apps of the connections for as long as these run.
    routes: Vec<Arc<Vec<RouteOfApp>>>,
}

/// A subscription whose worker does not run yet.
struct Active {
    name: String,
    place: Place,
    worker: Worker,
}

impl Subscriptions {
    pub(super) const fn new(
        phase: watch::Sender<Phase>,
        cause: mpsc::UnboundedSender<Cause>,
        limit: Duration,
        health: Health,
    ) -> Self {
        Self { active: Vec::new(), phase, cause, limit, health, routes: Vec::new() }
    }

    /// Starts those of all apps, in their order. Dropped, or when it fails, it leaves those that are active.
    pub(super) async fn start(&mut self, apps: Vec<Served>) -> Result<(), ServeError> {
        let mut started = Vec::with_capacity(apps.len());
        for (connection, Served { broker, app }) in apps.into_iter().enumerate() {
            let (engine, has_error_texts) = (app.instrumentation(), app.has_error_texts());
            let entries = app.into_entries();
            if entries.is_empty() {
                // It is only published to.
                self.health.names(connection, &broker.transport().system());
            }
            self.routes.push(checks::check(&*broker, &entries)?);
            let routes: Vec<_> =
                entries.iter().map(|entry| (entry.subscription.clone(), entry.options.clone())).collect();
            for entry in entries {
                let active = self.subscribe((connection, &*broker), entry, engine.as_ref(), has_error_texts).await?;
                self.active.push(active);
            }
            started.push((broker, routes));
        }
        for (broker, routes) in started {
            destinations::check(&*broker, &routes).await?;
        }
        for Active { name, worker, .. } in &mut self.active {
            worker.begin().await.map_err(|error| not_subscribed(name, error))?;
        }
        Ok(())
    }

    async fn subscribe(
        &mut self,
        (connection, broker): (usize, &dyn Broker),
        entry: Entry<()>,
        engine: Option<&Instrumentation>,
        has_error_texts: bool,
    ) -> Result<Active, ServeError> {
        let name = entry.subscription.to_string();
        let place = self.health.starts(&entry.subscription);
        let mut subscriber =
            broker.subscribe(&entry.subscription).await.map_err(|error| not_subscribed(&name, error))?;
        self.health.names(connection, &subscriber.source().system);
        // Before the adapter may say otherwise.
        place.set(HealthState::Ready);
        let consumer = engine.map(|engine| engine.consumer(subscriber.source()));
        let observer = Arc::new(Observer { consumer, place: place.clone() });
        let transport = subscriber.transport().unwrap_or_else(|| broker.transport());
        checks::check_retry(&*subscriber, &entry.subscription, &entry.options)?;
        checks::check_destinations(&*transport, &entry.subscription, &entry.options)?;
        let alarm = Alarm::new(&name, self.cause.clone());
        let (options, phase) = (&entry.options, self.phase.subscribe());
        let log = Arc::new(SubscriptionLog::new(&entry.subscription, has_error_texts));
        let stages =
            Stages::new(&*subscriber, transport, entry.handler, options, engine, phase.clone(), Arc::clone(&log));
        let dispatcher = Dispatcher::new(&*subscriber, options, stages, alarm.clone(), self.limit);
        let batch = entry.subscription.batch();
        let of_batch = batch.map_or(1, |policy| policy.max_messages);
        let at_once = |handlers: usize| handlers.saturating_mul(of_batch);
        let reception = Reception::new(observer, at_once(dispatcher.concurrency()));
        // Requests in batches wait for each other as other messages do.
        let requests = if batch.is_some() { dispatcher.concurrency() } else { dispatcher.room() };
        subscriber.prepare(reception.with_requests_at_once(at_once(requests)));
        let worker = Worker::new(subscriber, dispatcher, batch, phase, alarm, self.limit, log).shown_at(&place);
        Ok(Active { name, place, worker })
    }

    /// Lets the workers of those run that are active.
    pub(super) fn run(&mut self, workers: &mut JoinSet<(String, Result<(), BrokerError>)>) {
        for Active { name, place, worker } in self.active.drain(..) {
            worker.report_start();
            workers.spawn(async move {
                let _stops = Stops(place);
                (name, worker.run().await)
            });
        }
    }
}

fn not_subscribed(name: &str, error: BrokerError) -> ServeError {
    let kind = match error.kind() {
        BrokerErrorKind::Configuration => ServeErrorKind::Configuration,
        _ => ServeErrorKind::Subscribe,
    };
    ServeError::broker(kind, format!("cannot subscribe to {name}"), error)
}

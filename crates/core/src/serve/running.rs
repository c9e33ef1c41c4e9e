use std::fmt;
use std::future::{Future, pending, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::alarm::{Alarm, Cause};
use super::checks;
use super::dispatch::Dispatcher;
use super::error::{ServeError, ServeErrorKind};
use super::handling::Stages;
use super::health::{Health, HealthState, Observer, Stops};
use super::phase::{Deadlines, Phase};
use super::worker::Worker;
use crate::app::App;
use crate::broker::{Broker, BrokerError, BrokerErrorKind, Reception, RouteOfApp};
use crate::causes::Causes;
use crate::log::SubscriptionLog;

/// How much longer than its deadline an adapter may take to say why it has not ended.
const GRACE: Duration = Duration::from_millis(250);

/// An app that runs in the background; its subscriptions are active. Dropped, it stops at once and the broker delivers
/// unsettled messages again.
///
/// # Examples
///
/// ```no_run
/// # use throughline_core::{App, broker::Broker, serve};
/// # async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
/// let running = serve(broker, app).start().await?;
/// running.shutdown().await
/// # }
/// ```
#[must_use = "dropped at once, the app stops"]
pub struct Running {
    broker: Arc<dyn Broker>,
    workers: JoinSet<(String, Result<(), BrokerError>)>,
    phase: watch::Sender<Phase>,
    /// What ends the app from within.
    causes: mpsc::UnboundedReceiver<Cause>,
    limit: Duration,
    health: Health,
    /// Known to the other apps of the connection for as long as this one runs.
    _routes: Arc<Vec<RouteOfApp>>,
}

impl Running {
    pub(super) async fn start(
        broker: Arc<dyn Broker>,
        app: App,
        limit: Duration,
        health: Health,
    ) -> Result<Self, ServeError> {
        let (instrumentation, has_error_texts) = (app.instrumentation(), app.has_error_texts());
        let entries = app.into_entries();
        let routes = checks::check(&*broker, &entries)?;
        let (phase, _) = watch::channel(Phase::Running);
        let (cause, causes) = mpsc::unbounded_channel();
        let mut ready = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.subscription.destination().to_owned();
            let place = health.starts(&entry.subscription);
            let mut subscriber =
                broker.subscribe(&entry.subscription).await.map_err(|error| not_subscribed(&name, error))?;
            // Before the adapter may say otherwise.
            place.set(HealthState::Ready);
            let consumer = instrumentation.as_ref().map(|engine| engine.consumer(subscriber.source()));
            let observer = Arc::new(Observer { consumer, place: place.clone() });
            let transport = subscriber.transport().unwrap_or_else(|| broker.transport());
            checks::check_retry(&*subscriber, &entry.subscription, &entry.options)?;
            checks::check_destinations(&*transport, &entry.subscription, &entry.options)?;
            let alarm = Alarm::new(&name, cause.clone());
            let log = Arc::new(SubscriptionLog::new(&entry.subscription, has_error_texts));
            let (options, engine, phase) = (&entry.options, instrumentation.as_ref(), phase.subscribe());
            let stages =
                Stages::new(&*subscriber, transport, entry.handler, options, engine, phase.clone(), Arc::clone(&log));
            let dispatcher = Dispatcher::new(&*subscriber, options, stages, alarm.clone());
            let batch = entry.subscription.batch();
            let of_batch = batch.map_or(1, |policy| policy.max_messages);
            subscriber.prepare(Reception::new(observer, dispatcher.concurrency().saturating_mul(of_batch)));
            ready.push((name, place, Worker::new(subscriber, dispatcher, batch, phase, alarm, limit, log)));
        }
        let mut workers = JoinSet::new();
        for (name, place, worker) in ready {
            worker.report_start();
            workers.spawn(async move {
                let _stops = Stops(place);
                (name, worker.run().await)
            });
        }
        health.has_started();
        Ok(Self { broker, workers, phase, causes, limit, health, _routes: routes })
    }

    /// Returns what shows the state of the app, also after its end.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Shuts down: stops taking messages, lets running handlers finish within the shutdown timeout, settles, and closes the broker.
    ///
    /// # Errors
    ///
    /// Fails when a subscription had ended with an error, or the broker could not be flushed and closed.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use throughline_core::{App, broker::Broker, serve};
    /// # async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
    /// serve(broker, app).start().await?.shutdown().await
    /// # }
    /// ```
    pub async fn shutdown(self) -> Result<(), ServeError> {
        self.run_until(ready(())).await
    }

    /// Runs until the future ends or a subscription fails, then shuts down.
    ///
    /// # Errors
    ///
    /// Fails as [`shutdown`](Self::shutdown) does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use throughline_core::{App, broker::Broker, serve};
    /// # async fn run(broker: impl Broker, app: App, stop: tokio::sync::oneshot::Receiver<()>) -> Result<(), throughline_core::ServeError> {
    /// serve(broker, app).start().await?.run_until(async { let _ = stop.await; }).await
    /// # }
    /// ```
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> Result<(), ServeError> {
        self.run_until_forced(signal, pending()).await
    }

    /// Runs as [`run_until`](Self::run_until) does, but ends at once when the second future completes during the shutdown.
    pub(super) async fn run_until_forced(
        mut self,
        signal: impl Future<Output = ()>,
        forced: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let failed = self.run_on(pin!(signal)).await;
        if let Some(failed) = &failed {
            error!(error = %Causes(failed), "the app ends by itself");
        }
        let mut forced = pin!(forced);
        let deadlines = Deadlines::of(self.limit);
        let drained = tokio::select! {
            biased;
            () = &mut forced => {
                warn!(subscriptions = self.workers.len(), "the app is ended at once: what is not settled is left as it is");
                return Err(was_forced());
            }
            drained = self.drain(deadlines) => drained,
        };
        let closed = close(&*self.broker, deadlines, &mut forced).await;
        match (&drained, &closed) {
            (None, Ok(())) => info!("the app has ended"),
            (Some(error), _) | (None, Err(error)) => error!(error = %Causes(error), "the app has not ended well"),
        }
        match failed.or(drained) {
            Some(error) => Err(error),
            None => closed,
        }
    }

    /// Waits for the end, and returns the error where it came from within.
    async fn run_on(&mut self, mut signal: Pin<&mut impl Future<Output = ()>>) -> Option<ServeError> {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.workers.join_next() => {
                    let failed = failure(ended);
                    if failed.is_some() {
                        return failed;
                    }
                }
                Some(cause) = self.causes.recv() => return match cause {
                    // Why, its worker says at its end.
                    Cause::Ended => None,
                    Cause::Stopped(name, error) => Some(ended_with(&name, error)),
                },
                () = &mut signal => return None,
            }
        }
    }

    /// Lets the workers finish; those that do not in time drop their handlers.
    async fn drain(&mut self, deadlines: Deadlines) -> Option<ServeError> {
        self.health.is_ending();
        info!(subscriptions = self.workers.len(), limit = ?self.limit, "the app ends: no more messages are taken, handlers finish");
        self.phase.send_replace(Phase::Draining(deadlines));
        let mut failed = None;
        // Later than the workers give up by themselves.
        let last = deadlines.commit + deadlines.end.duration_since(deadlines.commit) / 2;
        loop {
            tokio::select! {
                biased;
                ended = self.workers.join_next() => match ended {
                    Some(ended) => failed = failed.or_else(|| failure(ended)),
                    None => return failed,
                },
                () = sleep_until(deadlines.handlers), if !self.phase.borrow().is_aborting() => {
                    self.phase.send_replace(Phase::Aborting(deadlines));
                }
                () = sleep_until(last) => {
                    let subscriptions = self.workers.len();
                    error!(subscriptions, limit = ?self.limit, "subscriptions did not end within the shutdown timeout and are left behind");
                    self.workers.abort_all();
                    return failed.or_else(|| Some(not_ended(subscriptions, self.limit)));
                }
            }
        }
    }
}

/// Flushes what was published and closes the broker, in what is left of the time.
pub(super) async fn close(
    broker: &dyn Broker,
    deadlines: Deadlines,
    forced: &mut (impl Future<Output = ()> + Unpin),
) -> Result<(), ServeError> {
    let not_closed =
        |error| ServeError::broker(ServeErrorKind::Shutdown, "the broker could not be closed".to_owned(), error);
    tokio::select! {
        biased;
        () = forced => Err(was_forced()),
        // An adapter that ends in time says more than this does.
        closed = timeout_at(deadlines.end + GRACE, broker.shutdown(deadlines.end)) => match closed {
            Ok(closed) => closed.map_err(not_closed),
            Err(_) => {
                let message = "what was published last may not have been sent within the shutdown timeout";
                Err(not_closed(BrokerError::new(BrokerErrorKind::Timeout, "timeout", message)))
            }
        },
    }
}

fn not_subscribed(name: &str, error: BrokerError) -> ServeError {
    let kind = match error.kind() {
        BrokerErrorKind::Configuration => ServeErrorKind::Configuration,
        _ => ServeErrorKind::Subscribe,
    };
    ServeError::broker(kind, format!("cannot subscribe to `{name}`"), error)
}

fn was_forced() -> ServeError {
    let message = "a second signal ended the app before its shutdown was done: what is not settled is delivered again where the broker does so";
    let error = BrokerError::new(BrokerErrorKind::Ended, "forced", message);
    ServeError::broker(ServeErrorKind::Shutdown, "the shutdown was cut short".to_owned(), error)
}

fn not_ended(subscriptions: usize, limit: Duration) -> ServeError {
    let message = format!("{subscriptions} subscriptions did not end within the {limit:?} of the shutdown");
    let error = BrokerError::new(BrokerErrorKind::Timeout, "timeout", message);
    ServeError::broker(ServeErrorKind::Shutdown, "the app did not end in time".to_owned(), error)
}

fn ended_with(name: &str, error: BrokerError) -> ServeError {
    ServeError::broker(ServeErrorKind::Ended, format!("the subscription to `{name}` ended"), error)
}

fn failure(ended: Result<(String, Result<(), BrokerError>), tokio::task::JoinError>) -> Option<ServeError> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((name, Err(error))) => Some(ended_with(&name, error)),
        Err(panic) => {
            let error = BrokerError::new(BrokerErrorKind::Ended, "panic", "the adapter panicked while receiving");
            Some(ServeError::broker(ServeErrorKind::Ended, "a subscription ended".to_owned(), error.with_source(panic)))
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("subscriptions", &self.workers.len()).finish_non_exhaustive()
    }
}

use std::fmt;
use std::future::{Future, pending, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::alarm::Cause;
use super::alongside::{Companion, CompanionEnd, Companions};
use super::error::{ServeError, ServeErrorKind};
use super::health::Health;
use super::phase::{Deadlines, Phase};
use super::service::Served;
use super::subscriptions::Subscriptions;
use crate::broker::{Broker, BrokerError, BrokerErrorKind};
use crate::causes::Causes;

/// How much longer than its deadline an adapter may take to say why it has not ended.
const GRACE: Duration = Duration::from_millis(250);

/// A service that runs in the background; its subscriptions are active. Dropped, it stops at once and the brokers deliver
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
#[must_use = "dropped at once, the service stops"]
pub struct Running {
    /// Closed last, when nothing runs that publishes.
    brokers: Vec<Arc<dyn Broker>>,
    subscriptions: Subscriptions,
    workers: JoinSet<(String, Result<(), BrokerError>)>,
    companions: Companions,
    /// What ends the service from within.
    causes: mpsc::UnboundedReceiver<Cause>,
}

impl Running {
    /// Starts what runs alongside.
    pub(super) fn new(apps: &[Served], companions: Vec<Companion>, limit: Duration, health: Health) -> Self {
        let (phase, _) = watch::channel(Phase::Running);
        let (cause, causes) = mpsc::unbounded_channel();
        Self {
            brokers: apps.iter().map(|served| Arc::clone(&served.broker)).collect(),
            workers: JoinSet::new(),
            companions: Companions::start(companions, &phase),
            subscriptions: Subscriptions::new(phase, cause, limit, health),
            causes,
        }
    }

    /// Starts the subscriptions of all apps. Fails as well when something alongside ends meanwhile.
    pub(super) async fn start(&mut self, apps: Vec<Served>) -> Result<(), ServeError> {
        tokio::select! {
            biased;
            Some(end) = self.companions.next_end() => return Err(ended_early(end)),
            started = self.subscriptions.start(apps) => started?,
        }
        self.subscriptions.run(&mut self.workers);
        self.subscriptions.health.has_started();
        Ok(())
    }

    /// Ends a service that could not start, and returns why. What is active gives back what it holds. The brokers are closed only where
    /// something ran that may have published.
    pub(super) async fn not_started(mut self, why: ServeError, forced: impl Future<Output = ()>) -> ServeError {
        if self.companions.is_empty() && why.kind() != ServeErrorKind::Alongside {
            self.brokers.clear();
        }
        self.subscriptions.health.fails("the service could not start");
        self.end(Some(why), forced).await.err().unwrap_or_else(was_forced)
    }

    /// Ends a service whose signal came before it had started.
    pub(super) async fn stopped_early(self, forced: impl Future<Output = ()>) -> Result<(), ServeError> {
        info!("the app is stopped before it has started");
        self.end(None, forced).await
    }

    /// Returns what shows the state of the app, also after its end.
    #[must_use]
    pub fn health(&self) -> Health {
        self.subscriptions.health.clone()
    }

    /// Shuts down: stops taking messages, lets running handlers and what runs alongside finish within the shutdown timeout, settles, and
    /// then closes the brokers.
    ///
    /// # Errors
    ///
    /// Fails when a subscription or something alongside had ended with an error, or a broker could not be flushed and closed.
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

    /// Runs until the future ends, a subscription fails or something alongside ends, then shuts down.
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
            error!(error = %Causes(failed), "the service ends by itself");
            self.subscriptions.health.fails("a part of the service has failed");
        }
        self.end(failed, forced).await
    }

    /// Drains all apps and what runs alongside, then closes all brokers. Errors beside the first one are logged.
    async fn end(mut self, failed: Option<ServeError>, forced: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut forced = pin!(forced);
        let deadlines = Deadlines::of(self.subscriptions.limit);
        self.subscriptions.health.explain(failed.as_ref());
        self.subscriptions.health.is_ending();
        self.subscriptions.phase.send_replace(Phase::Draining(deadlines));
        self.subscriptions.run(&mut self.workers);
        let (subscriptions, limit) = (self.workers.len(), self.subscriptions.limit);
        info!(subscriptions, ?limit, "the service ends: no more messages are taken, handlers finish");
        let mut errors = Errors::new(failed);
        tokio::select! {
            biased;
            () = &mut forced => {
                let subscriptions = self.workers.len();
                warn!(subscriptions, "the service is ended at once: what is not settled is left as it is");
                return Err(was_forced());
            }
            () = self.drain(deadlines, &mut errors) => {}
        }
        self.subscriptions.health.explain(errors.first.as_ref());
        let closing = join_all(self.brokers.iter().map(|broker| close(&**broker, deadlines)));
        tokio::select! {
            biased;
            () = &mut forced => errors.note(was_forced()),
            closed = closing => closed.into_iter().filter_map(Result::err).for_each(|error| errors.note(error)),
        }
        errors.into_result()
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
                Some(cause) = self.causes.recv() => match cause {
                    // Why, its worker says at its end.
                    Cause::Ended => {
                        self.subscriptions.health.fails("a subscription has ended");
                        return None;
                    }
                    Cause::Stopped(name, error) => return Some(ended_with(&name, error)),
                },
                Some(end) = self.companions.next_end() => return failure_alongside(end),
                () = &mut signal => return None,
            }
        }
    }

    /// Lets the workers and what runs alongside finish; those that do not in time are dropped.
    async fn drain(&mut self, deadlines: Deadlines, errors: &mut Errors) {
        // Later than the workers give up by themselves.
        let last = deadlines.commit + deadlines.end.duration_since(deadlines.commit) / 2;
        while !self.workers.is_empty() || !self.companions.is_empty() {
            let is_aborting = self.subscriptions.phase.borrow().is_aborting();
            tokio::select! {
                biased;
                Some(ended) = self.workers.join_next() => failure(ended).into_iter().for_each(|error| errors.note(error)),
                // None for one that was dropped.
                end = self.companions.next_end() => {
                    end.and_then(failure_alongside).into_iter().for_each(|error| errors.note(error));
                }
                () = sleep_until(deadlines.handlers), if !is_aborting => {
                    self.subscriptions.phase.send_replace(Phase::Aborting(deadlines));
                    for name in self.companions.abort() {
                        errors.note(not_ended_alongside(&name, self.subscriptions.limit));
                    }
                }
                () = sleep_until(last) => {
                    let subscriptions = self.workers.len();
                    if subscriptions == 0 {
                        // What ran alongside blocks its thread, and was told of.
                        return;
                    }
                    error!(subscriptions, limit = ?self.subscriptions.limit, "subscriptions did not end within the shutdown timeout and are left behind");
                    self.workers.abort_all();
                    return errors.note(not_ended(subscriptions, self.subscriptions.limit));
                }
            }
        }
    }
}

/// The error that a service ends with: the first one.
struct Errors {
    first: Option<ServeError>,
}

impl Errors {
    /// One that a service ended by was logged then.
    const fn new(first: Option<ServeError>) -> Self {
        Self { first }
    }

    /// Logs an error at the end.
    fn note(&mut self, error: ServeError) {
        error!(error = %Causes(&error), "an error at the end of the service");
        self.first.get_or_insert(error);
    }

    fn into_result(self) -> Result<(), ServeError> {
        info!("the service has ended");
        self.first.map_or(Ok(()), Err)
    }
}

/// Flushes what was published and closes the broker, in what is left of the time.
async fn close(broker: &dyn Broker, deadlines: Deadlines) -> Result<(), ServeError> {
    let not_closed =
        |error| ServeError::broker(ServeErrorKind::Shutdown, "the broker could not be closed".to_owned(), error);
    // An adapter that ends in time says more than this does.
    match timeout_at(deadlines.end + GRACE, broker.shutdown(deadlines.end)).await {
        Ok(closed) => closed.map_err(not_closed),
        Err(_) => {
            let message = "what was published last may not have been sent within the shutdown timeout";
            Err(not_closed(BrokerError::new(BrokerErrorKind::Timeout, "timeout", message)))
        }
    }
}

fn was_forced() -> ServeError {
    let message = "a second signal ended the app before its shutdown was done: what is not settled is delivered again where \
                   the broker does so";
    let error = BrokerError::new(BrokerErrorKind::Ended, "forced", message);
    ServeError::broker(ServeErrorKind::Shutdown, "the shutdown was cut short".to_owned(), error)
}

fn not_ended(subscriptions: usize, limit: Duration) -> ServeError {
    let message = format!("{subscriptions} subscriptions did not end within the {limit:?} of the shutdown");
    let error = BrokerError::new(BrokerErrorKind::Timeout, "timeout", message);
    ServeError::broker(ServeErrorKind::Shutdown, "the app did not end in time".to_owned(), error)
}

fn not_ended_alongside(name: &str, limit: Duration) -> ServeError {
    let message =
        format!("`{name}` did not end within the {limit:?} of the shutdown: it was dropped with what it was doing");
    let error = BrokerError::new(BrokerErrorKind::Timeout, "timeout", message);
    ServeError::broker(ServeErrorKind::Shutdown, "what ran alongside did not end in time".to_owned(), error)
}

fn failure_alongside(end: CompanionEnd) -> Option<ServeError> {
    let CompanionEnd { name, result } = end;
    match result {
        Ok(()) => {
            info!(name = &*name, "what ran alongside the app has ended");
            None
        }
        Err(error) => Some(ServeError::alongside(&name, error)),
    }
}

/// That of a companion that ended while the apps started.
fn ended_early(end: CompanionEnd) -> ServeError {
    let name = Arc::clone(&end.name);
    failure_alongside(end).unwrap_or_else(|| ServeError::alongside(&name, "it ended before the app had started".into()))
}

fn ended_with(name: &str, error: BrokerError) -> ServeError {
    ServeError::broker(ServeErrorKind::Ended, format!("the subscription to {name} ended"), error)
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

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::dispatch::Dispatcher;
use super::error::{ServeError, ServeErrorKind};
use super::phase::Phase;
use super::worker::Worker;
use crate::app::App;
use crate::broker::{Broker, BrokerError, BrokerErrorKind, Subscription};
use crate::extract::Shape;
use crate::handler::RouteOptions;

/// Is an app that runs in the background; its subscriptions are active. Dropped, it stops at once and the broker delivers
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
    drain: Duration,
}

impl Running {
    pub(super) async fn start(broker: Arc<dyn Broker>, app: App, drain: Duration) -> Result<Self, ServeError> {
        let instrumentation = app.instrumentation();
        let entries = app.into_entries();
        for entry in &entries {
            check_shape(&entry.subscription, &entry.options)?;
        }
        let subscriptions: Vec<&Subscription> = entries.iter().map(|entry| &entry.subscription).collect();
        broker.check(&subscriptions).map_err(|error| {
            ServeError::broker(
                ServeErrorKind::Configuration,
                "the subscriptions contradict each other".to_owned(),
                error,
            )
        })?;
        let (phase, _) = watch::channel(Phase::Running);
        let mut ready = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.subscription.destination().to_owned();
            let mut subscriber = broker.subscribe(&entry.subscription).await.map_err(|error| {
                let kind = match error.kind() {
                    BrokerErrorKind::Configuration => ServeErrorKind::Configuration,
                    _ => ServeErrorKind::Subscribe,
                };
                ServeError::broker(kind, format!("cannot subscribe to `{name}`"), error)
            })?;
            if let Some(instrumentation) = &instrumentation {
                subscriber.observe(Arc::new(instrumentation.consumer(subscriber.source())));
            }
            let transport = subscriber.transport().unwrap_or_else(|| broker.transport());
            let dispatcher = Dispatcher::new(
                &*subscriber,
                transport,
                entry.handler,
                entry.options,
                instrumentation.as_ref(),
                phase.subscribe(),
            );
            ready.push((name, Worker::new(subscriber, dispatcher, entry.subscription.batch(), phase.subscribe())));
        }
        let mut workers = JoinSet::new();
        for (name, worker) in ready {
            workers.spawn(async move { (name, worker.run().await) });
        }
        Ok(Self { broker, workers, phase, drain })
    }

    /// Shuts down: stops taking messages, lets running handlers finish within the drain timeout, settles, and closes the broker.
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
        self.run_until(std::future::ready(())).await
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
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut failed = None;
        tokio::pin!(signal);
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.workers.join_next() => {
                    failed = failed.or_else(|| failure(ended));
                    if failed.is_some() {
                        break;
                    }
                }
                () = &mut signal => break,
            }
        }
        let drained = self.drain().await;
        let closed = self.broker.shutdown().await.map_err(|error| {
            ServeError::broker(ServeErrorKind::Shutdown, "the broker could not be closed".to_owned(), error)
        });
        match failed.or(drained) {
            Some(error) => Err(error),
            None => closed,
        }
    }

    /// Lets the workers finish; those that do not in time drop their handlers.
    async fn drain(&mut self) -> Option<ServeError> {
        self.phase.send_replace(Phase::Draining);
        let mut failed = None;
        let deadline = tokio::time::sleep(self.drain);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                ended = self.workers.join_next() => match ended {
                    Some(ended) => failed = failed.or_else(|| failure(ended)),
                    None => return failed,
                },
                () = &mut deadline, if *self.phase.borrow() == Phase::Draining => {
                    warn!(limit = ?self.drain, "handlers still run after the drain timeout and are dropped; their messages are delivered again");
                    self.phase.send_replace(Phase::Aborting);
                }
            }
        }
    }
}

fn failure(ended: Result<(String, Result<(), BrokerError>), tokio::task::JoinError>) -> Option<ServeError> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((name, Err(error))) => {
            let message = format!("the subscription to `{name}` ended");
            Some(ServeError::broker(ServeErrorKind::Ended, message, error))
        }
        Err(panic) => {
            let error = BrokerError::new(BrokerErrorKind::Ended, "panic", "the adapter panicked while receiving");
            Some(ServeError::broker(ServeErrorKind::Ended, "a subscription ended".to_owned(), error.with_source(panic)))
        }
    }
}

/// A handler of batches needs a subscription that batches, and the other way round.
fn check_shape(subscription: &Subscription, options: &RouteOptions) -> Result<(), ServeError> {
    let name = subscription.destination();
    match (options.shape, subscription.batch()) {
        (Shape::Batch, None) => Err(ServeError::configuration(format!(
            "the handler of `{name}` takes a batch, but its subscription hands over single messages: \
             add `.batch(100, Duration::from_millis(50))` to the subscription"
        ))),
        (Shape::Single, Some(_)) => Err(ServeError::configuration(format!(
            "the subscription to `{name}` hands over batches, but its handler takes a single message: \
             take `Batch<T>` instead of `T`, or remove `.batch(..)`"
        ))),
        _ => Ok(()),
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("subscriptions", &self.workers.len()).finish_non_exhaustive()
    }
}

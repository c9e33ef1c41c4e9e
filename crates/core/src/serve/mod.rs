//! Running an app on a broker: receive, dispatch, settle, and shut down without losing a message.

mod alarm;
mod batching;
mod checks;
mod dispatch;
mod dropped;
pub(crate) mod error;
mod failed;
mod handling;
mod health;
mod lanes;
mod patience;
mod phase;
mod replies;
mod running;
mod settle;
mod signals;
mod work;
mod worker;

use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

pub(crate) use self::error::ServeError;
pub use self::health::{Health, HealthState, SubscriptionHealth};
use self::phase::Deadlines;
pub use self::running::Running;
use crate::app::{App, Ready};
use crate::broker::{BoxFuture, Broker};

/// How long handlers that are still running get at shutdown by default.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// Runs an app on a broker; awaiting it runs until a subscription fails or the shutdown signal comes.
///
/// Several brokers in one service are several `serve` futures, joined; a handler of one publishes to another through a
/// [`Publisher`](crate::Publisher) in its state, and the trace goes on.
///
/// # Examples
///
/// ```no_run
/// use throughline_core::{App, broker::Broker, serve};
///
/// async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
///     serve(broker, app).with_graceful_shutdown(async { let _ = std::future::pending::<()>().await; }).await
/// }
/// ```
pub fn serve(broker: impl Broker, app: impl Ready) -> Serve {
    Serve {
        broker: Arc::new(broker),
        app: app.into_app(),
        graceful: Box::pin(pending()),
        forced: Box::pin(pending()),
        limit: SHUTDOWN_TIMEOUT,
        health: Health::default(),
    }
}

/// An app that is about to run.
#[must_use = "nothing runs until this is awaited"]
pub struct Serve {
    broker: Arc<dyn Broker>,
    app: App,
    graceful: BoxFuture<'static, ()>,
    forced: BoxFuture<'static, ()>,
    limit: Duration,
    health: Health,
}

impl Serve {
    /// Shuts down when the future ends: stops taking messages, lets running handlers finish, settles, flushes what was published.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.graceful = Box::pin(signal);
        self
    }

    /// Ends at once when the future completes during a shutdown: handlers are dropped, nothing more is committed or flushed, and the
    /// broker delivers again what was not settled.
    pub fn with_forced_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.forced = Box::pin(signal);
        self
    }

    /// Shuts down at Ctrl-C or SIGTERM, also while the app still starts; a second one ends at once.
    pub fn with_signals(self) -> Self {
        self.with_graceful_shutdown(signals::termination()).with_forced_shutdown(signals::termination())
    }

    /// Sets how long the whole end may take (default 25 s, below the 30 s that orchestrators usually grant).
    ///
    /// Handlers get all of it but a fifth, of which no more than 5 s are kept: then they are dropped, and their spans end as cancelled.
    /// What is kept is for telling the broker, committing and flushing. What is not settled by then the broker delivers again, where it
    /// does so.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use throughline_core::{App, broker::Broker, serve};
    /// # async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
    /// serve(broker, app).shutdown_timeout(Duration::from_secs(5)).await
    /// # }
    /// ```
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Returns what shows the state of the app, also before it starts and after its end.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Starts all subscriptions and returns when they are active, while the app goes on in the background.
    ///
    /// # Errors
    ///
    /// Fails when the app is wrongly configured or a subscription is refused; nothing runs then.
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
    pub async fn start(self) -> Result<Running, ServeError> {
        Running::start(self.broker, self.app, self.limit, self.health).await
    }
}

impl IntoFuture for Serve {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { broker, app, mut graceful, mut forced, limit, health } = self;
            let starting = Running::start(Arc::clone(&broker), app, limit, health);
            let running = tokio::select! {
                biased;
                // A start that waits for a broker must not outlast the signal: what has begun is dropped.
                () = &mut graceful => {
                    info!("the app is stopped before it has started");
                    return running::close(&*broker, Deadlines::of(limit), &mut forced).await;
                }
                started = starting => started?,
            };
            running.run_until_forced(graceful, forced).await
        })
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("app", &self.app).field("shutdown_timeout", &self.limit).finish_non_exhaustive()
    }
}

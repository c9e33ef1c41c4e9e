use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::sync::Arc;
use std::time::Duration;

use super::alongside::{Companion, StopSignal};
use super::error::ServeError;
use super::health::Health;
use super::running::Running;
use super::signals;
use super::subscriptions::Served;
use crate::app::Ready;
use crate::broker::{BoxFuture, Broker};
use crate::message::BoxError;

/// How long handlers that are still running get at shutdown by default.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// Runs an app on a broker; awaiting it runs until something of it fails or the shutdown signal comes.
///
/// Several brokers in one service are one `Serve`, see [`and`](Serve::and); a handler of one publishes to another through a
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
        apps: Vec::new(),
        companions: Vec::new(),
        graceful: Box::pin(pending()),
        forced: Box::pin(pending()),
        limit: SHUTDOWN_TIMEOUT,
        health: Health::default(),
    }
    .and(broker, app)
}

/// A service that is about to run: apps on their brokers, and what runs alongside.
#[must_use = "nothing runs until this is awaited"]
pub struct Serve {
    apps: Vec<Served>,
    companions: Vec<Companion>,
    graceful: BoxFuture<'static, ()>,
    forced: BoxFuture<'static, ()>,
    limit: Duration,
    health: Health,
}

impl Serve {
    /// Adds an app on another broker. All of them are one service: they start in the order in which they are written; where one fails to
    /// start or ends, the others drain; and no broker is closed before all apps are done, so that the last handler of each can still
    /// publish to all. One deadline holds for all ([`shutdown_timeout`](Self::shutdown_timeout)).
    ///
    /// It is for another connection: what one connection receives belongs in one [`App`](crate::App).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::{App, broker::Broker, serve};
    ///
    /// async fn run(
    ///     (nats, orders): (impl Broker, App),
    ///     (kafka, bills): (impl Broker, App),
    /// ) -> Result<(), throughline_core::ServeError> {
    ///     serve(nats, orders).and(kafka, bills).with_signals().await
    /// }
    /// ```
    pub fn and(mut self, broker: impl Broker, app: impl Ready) -> Self {
        let broker: Arc<dyn Broker> = Arc::new(broker);
        self.health.connects(&broker);
        self.apps.push(Served { broker, app: app.into_app() });
        self
    }

    /// Runs something else as a part of the service, such as an HTTP server. The name is for errors and the log.
    ///
    /// It starts before the subscriptions do, in a task of its own. It is told when the service begins to end ([`StopSignal`]), at the
    /// same time as the subscriptions, and is waited for before the brokers are closed: what it is doing can still publish. What runs
    /// when the handlers are dropped is dropped as well, and the service ends with an error.
    ///
    /// When it ends by itself, the service ends: with [`ServeErrorKind::Alongside`](crate::ServeErrorKind::Alongside) for an error or a
    /// panic, else as with the signal.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{App, broker::Broker, serve};
    ///
    /// async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
    ///     let report = |stop: throughline_core::serve::StopSignal| async move {
    ///         stop.requested().await; // an HTTP server: `.with_graceful_shutdown(stop.requested())`
    ///         std::io::Result::Ok(())
    ///     };
    ///     serve(broker, app).alongside("report", report).with_signals().await
    /// }
    /// ```
    pub fn alongside<F, Fut, E>(mut self, name: &str, run: F) -> Self
    where
        F: FnOnce(StopSignal) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.companions.push(Companion::new(name, run));
        self
    }

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

    /// Starts all subscriptions and returns when they are active, while the service goes on in the background. The signals of
    /// [`with_graceful_shutdown`](Self::with_graceful_shutdown) and its like are not waited for:
    /// [`Running::run_until`] takes one.
    ///
    /// # Errors
    ///
    /// Fails when an app is wrongly configured, a subscription is refused, or what runs alongside ends: nothing runs then. What had begun
    /// is given back and waited for, within the shutdown timeout.
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
        let Self { apps, companions, limit, health, .. } = self;
        let mut running = Running::new(&apps, companions, limit, health);
        match running.start(apps).await {
            Ok(()) => Ok(running),
            Err(failed) => Err(running.not_started(failed, pending()).await),
        }
    }
}

impl IntoFuture for Serve {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { apps, companions, mut graceful, forced, limit, health } = self;
            let mut running = Running::new(&apps, companions, limit, health);
            let started = tokio::select! {
                biased;
                // A start that waits for a broker must not outlast the signal: what has begun is given up.
                () = &mut graceful => return running.stopped_early(forced).await,
                started = running.start(apps) => started,
            };
            match started {
                Ok(()) => running.run_until_forced(graceful, forced).await,
                Err(failed) => Err(running.not_started(failed, forced).await),
            }
        })
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let apps: Vec<_> = self.apps.iter().map(|served| &served.app).collect();
        f.debug_struct("Serve").field("apps", &apps).field("shutdown_timeout", &self.limit).finish_non_exhaustive()
    }
}

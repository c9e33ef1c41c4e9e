//! Running an app on a broker: receive, dispatch, settle, and shut down without losing a message.

mod batching;
mod dispatch;
mod error;
mod lanes;
mod phase;
mod replies;
mod running;
mod settle;
mod worker;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use self::error::{ServeError, ServeErrorKind};
pub use self::running::Running;
use crate::app::{App, Ready};
use crate::broker::Broker;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long handlers that are still running get at shutdown by default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

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
    Serve { broker: Arc::new(broker), app: app.into_app(), signal: None, drain: DRAIN_TIMEOUT }
}

/// Is an app that is about to run.
#[must_use = "nothing runs until this is awaited"]
pub struct Serve {
    broker: Arc<dyn Broker>,
    app: App,
    signal: Option<BoxFuture<()>>,
    drain: Duration,
}

impl Serve {
    /// Shuts down when the future ends: stops taking messages, lets running handlers finish, settles, flushes what was published.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use throughline_core::{App, broker::Broker, serve};
    /// # async fn run(broker: impl Broker, app: App, stop: tokio::sync::oneshot::Receiver<()>) -> Result<(), throughline_core::ServeError> {
    /// serve(broker, app).with_graceful_shutdown(async { let _ = stop.await; }).await
    /// # }
    /// ```
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.signal = Some(Box::pin(signal));
        self
    }

    /// Sets how long handlers that are still running get at shutdown (default 30 s); then they are dropped, their spans end as
    /// cancelled, and the broker delivers their messages again.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use throughline_core::{App, broker::Broker, serve};
    /// # async fn run(broker: impl Broker, app: App) -> Result<(), throughline_core::ServeError> {
    /// serve(broker, app).drain_timeout(Duration::from_secs(5)).await
    /// # }
    /// ```
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
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
        Running::start(self.broker, self.app, self.drain).await
    }
}

impl IntoFuture for Serve {
    type Output = Result<(), ServeError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        let signal = self.signal.take().unwrap_or_else(|| Box::pin(std::future::pending()));
        Box::pin(async move { self.start().await?.run_until(signal).await })
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("app", &self.app).field("drain", &self.drain).finish_non_exhaustive()
    }
}

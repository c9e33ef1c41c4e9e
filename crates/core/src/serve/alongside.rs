use std::fmt;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::phase::Phase;
use crate::broker::BoxFuture;
use crate::message::BoxError;
use crate::middleware::panic_failure;

/// The sign to end, for what runs [alongside](super::Serve::alongside) an app. Clones show the same one.
#[derive(Clone)]
pub struct StopSignal {
    phase: watch::Receiver<Phase>,
}

impl StopSignal {
    /// Returns a future that ends when the app begins to end: at the signal, or because something of the service has failed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost with a dropped future; another one may be asked for at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::serve::StopSignal;
    ///
    /// async fn report_until_the_end(stop: StopSignal) -> Result<(), std::io::Error> {
    ///     stop.requested().await;
    ///     Ok(())
    /// }
    /// ```
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut phase = self.phase.clone();
        async move {
            // An error says that the app itself is gone.
            let _ = phase.wait_for(|phase| !phase.is_running()).await;
        }
    }

    /// Tells whether the app has begun to end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        !self.phase.borrow().is_running()
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignal").field("is_requested", &self.is_requested()).finish()
    }
}

type Run = Box<dyn FnOnce(StopSignal) -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// Something that runs beside the subscriptions of a service, before it runs.
pub(super) struct Companion {
    name: Arc<str>,
    run: Run,
}

impl Companion {
    pub(super) fn new<F, Fut, E>(name: &str, run: F) -> Self
    where
        F: FnOnce(StopSignal) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = |stop| -> BoxFuture<'static, Result<(), BoxError>> {
            // Called in the task: a panic of it is one of the companion.
            Box::pin(async move { run(stop).await.map_err(Into::into) })
        };
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// How a companion ended.
pub(super) struct CompanionEnd {
    pub(super) name: Arc<str>,
    pub(super) result: Result<(), BoxError>,
}

/// What runs beside the subscriptions.
#[derive(Default)]
pub(super) struct Companions {
    running: JoinSet<CompanionEnd>,
    names: Vec<Arc<str>>,
}

impl Companions {
    pub(super) fn start(companions: Vec<Companion>, phase: &watch::Sender<Phase>) -> Self {
        let (mut running, mut names) = (JoinSet::new(), Vec::new());
        for Companion { name, run } in companions {
            names.push(Arc::clone(&name));
            let run = run(StopSignal { phase: phase.subscribe() });
            running.spawn(async move {
                let ran = AssertUnwindSafe(run).catch_unwind().await;
                let result = ran.unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_failure(panic)).into()));
                CompanionEnd { name, result }
            });
        }
        Self { running, names }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits for the next one that ends; `None` for one that was dropped. Waits for ever where none runs. Cancel safe.
    pub(super) async fn next_end(&mut self) -> Option<CompanionEnd> {
        match self.running.join_next().await {
            Some(Ok(end)) => {
                self.names.retain(|name| !Arc::ptr_eq(name, &end.name));
                Some(end)
            }
            Some(Err(_)) => None,
            None => pending().await,
        }
    }

    /// Drops those that still run and returns their names.
    pub(super) fn abort(&mut self) -> Vec<Arc<str>> {
        self.running.abort_all();
        std::mem::take(&mut self.names)
    }
}

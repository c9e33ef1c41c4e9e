use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use crate::broker::{BrokerError, BrokerErrorKind};
use crate::message::Delivery;
use crate::middleware::panic_failure;

/// Why an app is to end by itself.
pub(super) enum Cause {
    /// A subscription has ended. Its worker says why when it is done.
    Ended,
    /// A subscription is to stop.
    Stopped(String, BrokerError),
}

/// The way in which a subscription ends the app.
#[derive(Clone)]
pub(super) struct Alarm {
    name: Arc<str>,
    causes: mpsc::UnboundedSender<Cause>,
}

impl Alarm {
    pub(super) fn new(name: &str, causes: mpsc::UnboundedSender<Cause>) -> Self {
        Self { name: name.into(), causes }
    }

    /// Says that the subscription has ended.
    pub(super) fn ended(&self) {
        // Who listens may be gone, and the app with it.
        let _ = self.causes.send(Cause::Ended);
    }

    /// Runs a task of the subscription. A handler's panic is a failure of its message and ends no task: one that panics all the same is a
    /// fault of the framework or an adapter, and ends the subscription.
    pub(super) async fn guard(self, task: impl Future<Output = ()>) {
        let Err(panic) = AssertUnwindSafe(task).catch_unwind().await else { return };
        let text =
            format!("the framework or the adapter panicked while a message was settled: {}", panic_failure(panic));
        self.raise(BrokerError::new(BrokerErrorKind::Ended, "panic", text));
    }

    /// Says that a message is left as it is, because it failed and can be published nowhere.
    pub(super) fn stop(&self, message: &Delivery) {
        let place = message.position().map_or_else(String::new, |position| format!(" ({position})"));
        let text = format!(
            "a message of `{}`{place} failed and can never be published elsewhere: it is left unsettled; the log says why",
            message.destination()
        );
        self.raise(BrokerError::new(BrokerErrorKind::Ended, "unpublishable", text));
    }

    fn raise(&self, error: BrokerError) {
        let _ = self.causes.send(Cause::Stopped(self.name.to_string(), error));
    }
}

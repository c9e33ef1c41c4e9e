use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use throughline_core::broker::{Publish, Received, Subscriber};
use throughline_core::serve::{Running, Serve};
use throughline_core::telemetry::{Builder, Instrumentation};
use throughline_core::{App, Delivery, Publisher, Settlement, serve};

use super::wait::soon;
use super::{Harness, Spec, Wildcard};
use crate::Capture;

/// One case: its broker, its captured telemetry and its names. When the case fails it prints its id and its spans.
pub(crate) struct Bench<H: Harness> {
    pub(crate) harness: H,
    pub(crate) capture: Capture,
    pub(crate) id: String,
    keys: AtomicU64,
    guard: Guard,
}

/// Prints the id of a failing case, so that the broker's logs can be searched for it.
struct Guard {
    id: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the destinations of this case begin with `{}.`", self.id);
        }
    }
}

impl<H: Harness> Bench<H> {
    pub(crate) async fn start() -> Self {
        let id = unique();
        let guard = Guard { id: id.clone() };
        let harness = soon("the broker", H::start(&id)).await;
        Self { harness, capture: Capture::new(), id, keys: AtomicU64::new(0), guard }
    }

    pub(crate) async fn stop(self) {
        let Self { harness, guard, .. } = self;
        soon("the broker to be tidied up", harness.stop()).await;
        drop(guard);
    }

    /// Returns a destination of this case.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{}.{what}", self.id)
    }

    pub(crate) fn wildcard(&self, what: &str) -> Wildcard {
        self.harness.wildcard(&self.name(what))
    }

    /// Returns what asks for everything sent to a destination of this case.
    pub(crate) fn spec(&self, what: &str) -> Spec {
        self.spec_of(self.name(what))
    }

    pub(crate) fn spec_of(&self, destination: String) -> Spec {
        Spec::new(destination, format!("{}-{}", self.id, self.keys.fetch_add(1, Ordering::Relaxed)))
    }

    /// Returns a group of this case.
    pub(crate) fn group(&self, what: &str) -> String {
        format!("{}-{what}", self.id)
    }

    pub(crate) fn engine(&self) -> Instrumentation {
        self.engine_with(|settings| settings)
    }

    pub(crate) fn engine_with(
        &self,
        settings: impl FnOnce(Builder<Instrumentation>) -> Builder<Instrumentation>,
    ) -> Instrumentation {
        settings(self.capture.instrumentation()).build()
    }

    /// Returns a publisher on a connection of its own, with captured telemetry.
    pub(crate) async fn publisher(&self) -> Publisher {
        Publisher::new(&self.connect().await).telemetry(self.engine())
    }

    /// Returns a publisher that leaves headers as they are.
    pub(crate) async fn plain_publisher(&self) -> Publisher {
        Publisher::new(&self.connect().await).without_telemetry()
    }

    pub(crate) async fn connect(&self) -> H::Broker {
        soon("a connection", self.harness.connect()).await
    }

    /// Prepares an app on a connection of its own, with captured telemetry.
    pub(crate) async fn prepare(&self, app: App) -> Serve {
        serve(self.connect().await, app.telemetry(self.engine()))
    }

    pub(crate) async fn serve(&self, app: App) -> Running {
        started(self.prepare(app).await).await
    }

    /// Subscribes without the framework.
    pub(crate) async fn read(&self, what: &str) -> Reader {
        self.read_as(&self.spec(what)).await
    }

    pub(crate) async fn read_as(&self, spec: &Spec) -> Reader {
        Reader::open(&self.connect().await, self.harness.subscription(spec)).await
    }
}

/// Starts an app.
pub(crate) async fn started(app: Serve) -> Running {
    match soon("the app to start", app.start()).await {
        Ok(running) => running,
        Err(error) => panic!("the app does not start: {}", chain(&error)),
    }
}

/// Stops an app and finds nothing wrong.
pub(crate) async fn stopped(running: Running) {
    if let Err(error) = soon("the app to stop", running.shutdown()).await {
        panic!("the app does not stop: {}", chain(&error));
    }
}

/// Reads messages without the framework, and acknowledges them.
pub(crate) struct Reader {
    subscriber: Box<dyn Subscriber>,
}

impl Reader {
    pub(crate) async fn open(
        broker: &impl throughline_core::broker::Broker,
        subscription: throughline_core::broker::Subscription,
    ) -> Self {
        match soon("a subscription", broker.subscribe(&subscription)).await {
            Ok(subscriber) => Self { subscriber },
            Err(error) => panic!("the broker refuses `{}`: {}", subscription.destination(), chain(&error)),
        }
    }

    pub(crate) async fn take(&mut self) -> Received {
        match soon("a message", self.subscriber.receive()).await {
            Ok(received) => received,
            Err(error) => panic!("the subscription ended: {}", chain(&error)),
        }
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        let mut received = self.take().await;
        acknowledge(&mut received).await;
        received.delivery.clone()
    }

    pub(crate) fn subscriber(&self) -> &dyn Subscriber {
        self.subscriber.as_ref()
    }

    pub(crate) async fn close(mut self) {
        soon("the subscription to close", self.subscriber.close(tokio::time::Instant::now() + super::wait::PATIENCE))
            .await;
    }
}

pub(crate) async fn acknowledge(received: &mut Received) {
    if let Err(error) = received.settle(&Settlement::Ack).await {
        panic!("acknowledging failed: {}", chain(&error));
    }
}

/// Publishes one message that must be taken.
pub(crate) async fn publish(publisher: &Publisher, destination: &String, body: impl Into<Bytes>) {
    delivered(publisher.publish(destination, body.into()).await);
}

/// Publishes a text under itself as the key, for a broker that divides a destination by keys.
pub(crate) async fn publish_with_key(publisher: &Publisher, destination: &String, body: String) {
    delivered(publisher.publish(destination, body.clone()).key(body).await);
}

/// Unwraps the result of a publish.
#[track_caller]
pub(crate) fn delivered<T, E: std::error::Error>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("a message was not published: {}", chain(&error)),
    }
}

/// Unwraps the answer of a transport.
pub(crate) async fn ask(transport: &dyn Publish, envelope: throughline_core::Envelope) -> Delivery {
    delivered(transport.request(envelope, super::wait::PATIENCE).await)
}

pub(crate) fn body_of(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Returns an id that no other case has, on this machine and in this server.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("c{:x}x{:x}x{}", now.as_micros(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

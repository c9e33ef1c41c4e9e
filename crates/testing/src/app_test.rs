use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use throughline_core::broker::{Broker, Subscriber};
use throughline_core::codec::{Decode, Encode};
use throughline_core::serve::Running;
use throughline_core::telemetry::{Builder, Instrumentation};
use throughline_core::{App, Delivery, Destination, Publisher, Settlement, serve};
use throughline_memory::{Channel, Memory};
use tokio::sync::Mutex as AsyncMutex;

use crate::{Capture, TraceTree};

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// An app that runs on the in-memory broker with its telemetry captured; what it publishes is kept for the test to read.
///
/// Dropped, it stops. No global provider is touched, so tests run side by side.
///
/// # Examples
///
/// ```
/// # use throughline_core::App;
/// # use throughline_memory::Channel;
/// async fn reserve(order: String) {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let test = throughline_testing::start(App::new().subscribe(Channel::new("orders"), reserve)).await;
/// test.publish("orders", "42").await;
/// test.trace().await.assert_tree("
///     publish orders
///     └─ process orders
/// ");
/// # }
/// ```
pub struct AppTest {
    broker: Memory,
    capture: Capture,
    publisher: Publisher,
    observed: AsyncMutex<Observer>,
    seen: Mutex<Vec<Delivery>>,
    _running: Running,
}

struct Observer {
    subscriber: Box<dyn Subscriber>,
}

impl Observer {
    async fn receive(&mut self) -> Delivery {
        match self.subscriber.receive().await {
            Ok(mut received) => {
                // Acknowledging on the in-memory broker cannot fail.
                let _ = received.settle(&Settlement::Ack).await;
                received.delivery.clone()
            }
            Err(error) => panic!("the in-memory broker stopped: {error}"),
        }
    }
}

/// Starts an app on a fresh in-memory broker, whatever broker its subscriptions are made for.
///
/// # Panics
///
/// Panics when the app cannot be served, such as when a subscription needs what only the real broker can do; the text says what.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let test = throughline_testing::start(throughline_core::App::new()).await;
/// assert!(test.capture().spans().is_empty());
/// # }
/// ```
pub async fn start(app: App) -> AppTest {
    start_with(app, |telemetry| telemetry).await
}

/// Starts an app as [`start`] does, with telemetry settings of the test's choice.
///
/// # Panics
///
/// Panics as [`start`] does.
///
/// # Examples
///
/// ```
/// use throughline_core::{App, telemetry::SettleSpans};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let test = throughline_testing::start_with(App::new(), |t| t.settle_spans(SettleSpans::Always)).await;
/// # let _ = test;
/// # }
/// ```
pub async fn start_with(app: App, settings: impl Fn(Builder<Instrumentation>) -> Builder<Instrumentation>) -> AppTest {
    start_in(Capture::new(), app, settings).await
}

/// Starts an app as [`start_with`] does, with a capture made before: handlers that make spans of their own can be given its
/// tracer provider, and their spans are in the same tree.
///
/// # Panics
///
/// Panics as [`start`] does.
///
/// # Examples
///
/// ```
/// use throughline_core::App;
/// use throughline_testing::Capture;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let capture = Capture::new();
/// let app = App::new(); // with handlers that make spans on `capture.tracer_provider()`
/// let test = throughline_testing::start_in(capture, app, |telemetry| telemetry).await;
/// # let _ = test;
/// # }
/// ```
pub async fn start_in(
    capture: Capture,
    app: App,
    settings: impl Fn(Builder<Instrumentation>) -> Builder<Instrumentation>,
) -> AppTest {
    let engine = settings(capture.instrumentation()).build();
    let broker = Memory::recording();
    let subscriber = match broker.subscribe(&Channel::new(">").into()).await {
        Ok(subscriber) => subscriber,
        Err(error) => panic!("the in-memory broker refused to be observed: {error}"),
    };
    let app = app.telemetry(engine.clone());
    let running = match serve(broker.clone(), app).start().await {
        Ok(running) => running,
        Err(error) => panic!("the app cannot be served: {}", chain(&error)),
    };
    let publisher = broker.publisher().telemetry(&engine);
    let observed = AsyncMutex::new(Observer { subscriber });
    AppTest { broker, capture, publisher, observed, seen: Mutex::default(), _running: running }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl AppTest {
    /// Publishes a message as a service outside the app would.
    ///
    /// # Panics
    ///
    /// Panics when it cannot be published.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let test = throughline_testing::start(throughline_core::App::new()).await;
    /// test.publish("orders.placed", "42").await;
    /// # }
    /// ```
    pub async fn publish(&self, destination: impl Into<Destination>, body: impl Encode) {
        if let Err(error) = self.publisher.publish(destination, body).await {
            panic!("the test could not publish: {}", chain(&error));
        }
    }

    /// Returns the publisher of the test, for keys, headers, batches and requests.
    #[must_use]
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Returns the in-memory broker the app runs on.
    #[must_use]
    pub const fn broker(&self) -> &Memory {
        &self.broker
    }

    /// Waits for the next message published to a destination that no earlier call returned, and decodes its body.
    ///
    /// # Panics
    ///
    /// Panics when none comes within ten seconds, or it cannot be decoded; the text lists what was published instead.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let test = throughline_testing::start(throughline_core::App::new()).await;
    /// test.publish("orders.placed", "42").await;
    /// assert_eq!(test.next::<String>("orders.placed").await, "42");
    /// # }
    /// ```
    pub async fn next<T: Decode>(&self, destination: &str) -> T {
        let delivery = self.next_delivery(destination).await;
        match T::decode(&delivery) {
            Ok(body) => body,
            Err(error) => panic!("the message to `{destination}` is not what the test expects: {}", chain(&error)),
        }
    }

    /// Waits as [`next`](Self::next) does and returns the whole message, with its headers.
    ///
    /// # Panics
    ///
    /// Panics when none comes within ten seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let test = throughline_testing::start(throughline_core::App::new()).await;
    /// test.publish("orders.placed", "42").await;
    /// assert!(test.next_delivery("orders.placed").await.headers().contains("traceparent"));
    /// # }
    /// ```
    pub async fn next_delivery(&self, destination: &str) -> Delivery {
        let mut observer = self.observed.lock().await;
        if let Some(kept) = self.take_seen(destination) {
            return kept;
        }
        let wait = async {
            loop {
                let delivery = observer.receive().await;
                if delivery.destination() == destination {
                    return delivery;
                }
                self.keep(delivery);
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(delivery) => delivery,
            Err(_) => {
                let others: Vec<String> =
                    self.with_seen(|seen| seen.iter().map(|d| d.destination().to_owned()).collect());
                panic!("nothing was published to `{destination}` within {PATIENCE:?}; what was published: {others:?}")
            }
        }
    }

    fn take_seen(&self, destination: &str) -> Option<Delivery> {
        self.with_seen(|seen| {
            let index = seen.iter().position(|delivery| delivery.destination() == destination)?;
            Some(seen.remove(index))
        })
    }

    fn keep(&self, delivery: Delivery) {
        self.with_seen(|seen| seen.push(delivery));
    }

    fn with_seen<R>(&self, f: impl FnOnce(&mut Vec<Delivery>) -> R) -> R {
        f(&mut self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Waits until the app has nothing left to do and returns all spans as a tree.
    ///
    /// # Panics
    ///
    /// Panics when the app is still busy after ten seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let test = throughline_testing::start(throughline_core::App::new()).await;
    /// test.publish("orders.placed", "42").await;
    /// test.trace().await.assert_tree("publish orders.placed");
    /// # }
    /// ```
    pub async fn trace(&self) -> TraceTree {
        self.settle().await;
        self.capture.tree()
    }

    /// Waits until the app has nothing left to do.
    ///
    /// # Panics
    ///
    /// Panics when the app is still busy after ten seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let test = throughline_testing::start(throughline_core::App::new()).await;
    /// test.settle().await;
    /// # }
    /// ```
    pub async fn settle(&self) {
        // What the test did not ask for is queued at its observer: take it, so that the broker can come to rest.
        let rest = async {
            let mut observer = self.observed.lock().await;
            loop {
                tokio::select! {
                    biased;
                    delivery = observer.receive() => self.keep(delivery),
                    () = self.broker.idle() => return,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, rest).await.is_err() {
            panic!("the app is still busy after {PATIENCE:?}; spans so far:\n{}", self.capture.tree());
        }
    }

    /// Returns what was captured: spans, metrics and logs.
    #[must_use]
    pub const fn capture(&self) -> &Capture {
        &self.capture
    }
}

impl fmt::Debug for AppTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTest").finish_non_exhaustive()
    }
}

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use throughline_core::broker::{Broker, Subscriber};
use throughline_core::codec::{Decode, Encode};
use throughline_core::serve::{Health, Running};
use throughline_core::telemetry::{Builder, Instrumentation};
use throughline_core::{App, Delivery, Destination, Publisher, Settlement, serve};
use throughline_memory::{Channel, Memory};
use tokio::sync::Mutex as AsyncMutex;

use crate::patience::within;
use crate::report::report;
use crate::{Capture, TraceTree};

/// How long a test waits for anything before it fails, where it sets nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// An app that runs on the in-memory broker with its telemetry captured; what it publishes is kept for the test to read.
///
/// Dropped, it stops. No global provider is touched, so tests run side by side.
///
/// The telemetry settings are those of the app: its propagators, hooks, names and which spans it makes. Only the providers are replaced.
/// The test itself publishes through a connection of its own, so that what it makes fail on [`broker`](Self::broker) is what the app sees.
///
/// With `#[tokio::test(start_paused = true)]` the delays of retries, batches and timeouts take no time. How long the test waits is
/// measured in real time all the same.
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
    patience: Duration,
    capture: Capture,
    publisher: Publisher,
    observed: AsyncMutex<Observer>,
    seen: Mutex<Vec<Delivery>>,
    running: Running,
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
            // The test has stopped the broker: nothing comes any more.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Starts an app on a fresh in-memory broker, whatever broker its subscriptions are made for, with its own telemetry settings.
///
/// An app [`without_telemetry`](App::without_telemetry) stays without; the trace then has what the test itself publishes.
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

/// Starts an app as [`start`] does, with changes of the test's choice to its telemetry settings.
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
    let own = app.telemetry_builder();
    let has_telemetry = own.is_some();
    let engine = settings(capture.receive(own.unwrap_or_else(Instrumentation::builder))).build();
    let app = if has_telemetry { app.telemetry(&engine) } else { app };
    let broker = Memory::recording();
    let outside = broker.connect();
    let subscriber = match outside.subscribe(&Channel::new(">").into()).await {
        Ok(subscriber) => subscriber,
        Err(error) => panic!("the in-memory broker refused to be observed: {error}"),
    };
    let running = match serve(broker.clone(), app).start().await {
        Ok(running) => running,
        Err(error) => panic!("the app cannot be served: {}", chain(&error)),
    };
    let publisher = outside.publisher().telemetry(&engine);
    let observed = AsyncMutex::new(Observer { subscriber });
    AppTest { broker, patience: PATIENCE, capture, publisher, observed, seen: Mutex::default(), running }
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
    /// Sets how long the test waits for anything before it fails (default 10 s). It is real time, also where the clock is paused.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// # use throughline_core::App;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let test = throughline_testing::start(App::new()).await.patience(Duration::from_secs(60));
    /// # let _ = test;
    /// # }
    /// ```
    #[must_use]
    pub const fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

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

    /// Returns the connection of the app to its in-memory broker: to look at what was settled, and to make a publish, a settlement or the
    /// connection fail.
    #[must_use]
    pub const fn broker(&self) -> &Memory {
        &self.broker
    }

    /// Waits for the next message published to a destination that no earlier call returned, and decodes its body.
    ///
    /// # Panics
    ///
    /// Panics when none comes in time ([`patience`](Self::patience)), or it cannot be decoded; the text lists what was published instead,
    /// and what the app is at.
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
    /// Panics when none comes in time.
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
        if let Some(delivery) = within(self.patience, wait).await {
            return delivery;
        }
        let others: Vec<String> = self.with_seen(|seen| seen.iter().map(|d| d.destination().to_owned()).collect());
        panic!(
            "nothing was published to `{destination}` within {:?}; what was published: {others:?}; what the app is at:{}",
            self.patience,
            self.report()
        )
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
    /// Panics when the app is still busy after its [`patience`](Self::patience): the text says which messages are open, where they are, how
    /// often and why they failed, and when the next attempt is.
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
    /// Panics when the app is still busy after its [`patience`](Self::patience): the text says which messages are open, where they are, how
    /// often and why they failed, and when the next attempt is.
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
        if within(self.patience, rest).await.is_none() {
            panic!(
                "the app is still busy after {:?}:{}\nspans so far:\n{}",
                self.patience,
                self.report(),
                self.capture.tree()
            );
        }
    }

    fn report(&self) -> String {
        report(&self.broker, &self.health())
    }

    /// Returns what shows the state of the app, as its probes would ask it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.running.health()
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

//! Messages that are to go elsewhere and cannot: none is settled before it has (design, section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::Status;
use throughline_core::broker::{
    BoxFuture, Broker, Publish, PublishErrorKind, Received, RetryPlace, RetryRoute, Settle, Subscriber, Subscription,
};
use throughline_core::extract::{Batch, State};
use throughline_core::message::Source;
use throughline_core::middleware::NextPublish;
use throughline_core::serve::Running;
use throughline_core::{
    App, BrokerError, Delivery, Envelope, Handler, Middleware, PublishError, Receipt, Settlement, serve,
};
use throughline_memory::{Channel, Memory};
use throughline_testing::{Capture, attribute};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::support::{Seen, points};

/// The longest delay of the back-off.
const MOST: Duration = Duration::from_secs(30);

/// The in-memory broker as one that delivers nothing again and, where it has a place for them, lets failed messages wait.
#[derive(Clone)]
struct Waiting {
    memory: Memory,
    has_place: bool,
    is_withdrawn: Arc<AtomicBool>,
    calls: Arc<mpsc::UnboundedSender<String>>,
}

/// What the broker was told, in its order.
type Calls = mpsc::UnboundedReceiver<String>;

impl Waiting {
    fn new(has_place: bool) -> (Self, Calls) {
        let (calls, told) = mpsc::unbounded_channel();
        (Self { memory: Memory::new(), has_place, is_withdrawn: Arc::default(), calls: Arc::new(calls) }, told)
    }

    /// Starts the app and publishes messages to it.
    async fn run(&self, app: App, capture: &Capture, messages: &[&'static str]) -> Running {
        let app = app.telemetry(capture.instrumentation().build());
        let running = serve(self.clone(), app).start().await.unwrap();
        let publisher = self.memory.publisher().without_telemetry();
        publisher.publish_batch("orders", messages.iter().copied()).await.unwrap();
        running
    }
}

#[async_trait]
impl Broker for Waiting {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(WaitingSubscriber { inner, broker: self.clone() }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

struct WaitingSubscriber {
    inner: Box<dyn Subscriber>,
    broker: Waiting,
}

#[async_trait]
impl Subscriber for WaitingSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        self.broker.has_place.then(|| Arc::new(Twice) as _)
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let mut received = self.inner.receive().await?;
        let (settle, tag) = (received.take_settle().unwrap(), received.tag);
        let noting = Noting { inner: settle, broker: self.broker.clone() };
        Ok(received.with_settle(Arc::new(noting), tag))
    }
}

/// A message is tried twice: it waits at `later` in between.
struct Twice;

impl RetryRoute for Twice {
    fn place(&self, message: &Delivery, _after: Option<Duration>) -> Option<RetryPlace> {
        (message.attempt() < 2).then(|| RetryPlace::new("later", Duration::ZERO))
    }
}

struct Noting {
    inner: Arc<dyn Settle>,
    broker: Waiting,
}

impl Settle for Noting {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.broker.calls.send(format!("{} {settlement:?}", text(&message.delivery))).unwrap();
            self.inner.settle(message, settlement).await
        })
    }

    fn is_withdrawn(&self, _message: &Received) -> bool {
        self.broker.is_withdrawn.load(Ordering::SeqCst)
    }

    fn abandon(&self, message: &Received) {
        self.broker.calls.send(format!("{} is given up", text(&message.delivery))).unwrap();
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

/// Refuses to publish so many times; every other time by a panic, where it does.
#[derive(Clone)]
struct Down {
    times: Arc<AtomicUsize>,
    panics: bool,
    /// When something was to be published.
    at: Seen<Instant>,
}

impl Down {
    fn new(times: usize) -> Self {
        Self { times: Arc::new(AtomicUsize::new(times)), panics: false, at: Seen::new() }
    }
}

#[async_trait]
impl Middleware for Down {
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        self.at.push(Instant::now());
        match self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(left) if self.panics && left % 2 == 1 => panic!("the middleware panics on purpose"),
            Ok(_) => Err(PublishError::new(PublishErrorKind::NotFound, "not_found", "no such place")),
            Err(_) => next.run(envelope).await,
        }
    }
}

async fn fail(delivery: Delivery, State(seen): State<Seen<(u32, Instant)>>) -> Result<(), std::fmt::Error> {
    seen.push((delivery.attempt(), Instant::now()));
    Err(std::fmt::Error)
}

async fn next(calls: &mut Calls) -> String {
    timeout(Duration::from_secs(7200), calls.recv()).await.expect("in time").expect("the broker lives")
}

/// However often it cannot be forwarded, the handler ran once, and nothing is settled before it was.
#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_forwarded_is_forwarded_again_until_it_can() {
    const FAILS: usize = 25;
    for panics in [false, true] {
        let ((broker, mut calls), capture, seen) = (Waiting::new(true), Capture::new(), Seen::new());
        let down = Down { panics, ..Down::new(FAILS) };
        let tries = down.clone();
        let app = App::new().subscribe(Channel::new("orders"), fail.middleware(down)).with_state(seen.clone());
        let mut later = broker.memory.subscribe(&Channel::new("later").into()).await.unwrap();
        let running = broker.run(app, &capture, &["42"]).await;
        assert_eq!(next(&mut calls).await, "42 Ack", "panics: {panics}");
        let waits = later.receive().await.unwrap().delivery.clone();
        assert_eq!((text(&waits), waits.headers().get("retry-attempt")), ("42".to_owned(), Some("2")));
        running.shutdown().await.unwrap();
        assert!(calls.try_recv().is_err(), "it was settled once");

        assert_eq!(seen.take().len(), 1, "the handler runs once");
        let times = tries.at.take();
        assert_eq!(times.len(), FAILS + 1);
        let mut most = Duration::from_millis(100);
        for (index, pair) in times.windows(2).enumerate() {
            let delay = pair[1].duration_since(pair[0]);
            // It is looked in between whether another member gets the message.
            let slack = Duration::from_millis(60);
            assert!(delay <= most + slack && delay + slack >= most / 2, "{index}: {delay:?} of {most:?}");
            most = (most * 2).min(MOST);
        }
        let tree = capture.tree();
        let handled = tree.find("process orders");
        assert!(matches!(handled.status, Status::Error { .. }));
        assert!(
            attribute(handled, "error.type").is_some_and(|kind| kind.as_str().contains("fmt::Error")),
            "the handler's"
        );
        let settled = |how| points(&capture, "throughline.settled.messages", &[("throughline.settlement", how)]);
        assert_eq!(settled("retry")[0].sum, 1.0);
        assert!(settled("reject").is_empty());
    }
}

/// Of a batch, what cannot be forwarded is forwarded again without the others.
#[tokio::test(start_paused = true)]
async fn of_a_batch_only_what_cannot_be_forwarded_is_tried_again() {
    async fn handle(batch: Batch<String>) {
        for message in batch {
            let is_bad = message.body().starts_with("bad");
            message.run(async |_| if is_bad { Err(std::fmt::Error) } else { Ok(()) }).await;
        }
    }
    let ((broker, mut calls), capture) = (Waiting::new(true), Capture::new());
    let orders = Channel::new("orders").batch(3, Duration::from_secs(1));
    let mut later = broker.memory.subscribe(&Channel::new("later").into()).await.unwrap();
    let app = App::new().subscribe(orders, handle.middleware(Down::new(1)));
    let running = broker.run(app, &capture, &["bad 1", "good", "bad 2"]).await;
    let told = [next(&mut calls).await, next(&mut calls).await, next(&mut calls).await];
    assert_eq!(told, ["bad 1 Ack", "good Ack", "bad 2 Ack"]);
    let forwarded = [later.receive().await.unwrap(), later.receive().await.unwrap()];
    assert_eq!(forwarded.map(|received| text(&received.delivery)), ["bad 2", "bad 1"]);
    running.shutdown().await.unwrap();
    assert!(calls.try_recv().is_err());
}

/// A dead letter is the last place there is: it is tried for ever, also where what publishes it panics.
#[tokio::test(start_paused = true)]
async fn a_message_whose_dead_letter_fails_is_forwarded_again_until_it_is_buried() {
    const FAILS: usize = 25;
    for panics in [false, true] {
        let ((broker, mut calls), capture, seen) = (Waiting::new(false), Capture::new(), Seen::new());
        let down = Down { panics, ..Down::new(FAILS) };
        let app = App::new()
            .subscribe(Channel::new("orders"), fail.middleware(down).dead_letter("dead"))
            .with_state(seen.clone());
        let mut dead = broker.memory.subscribe(&Channel::new("dead").into()).await.unwrap();
        let running = broker.run(app, &capture, &["42"]).await;
        assert_eq!(next(&mut calls).await, "42 Ack", "panics: {panics}");
        assert_eq!(text(&dead.receive().await.unwrap().delivery), "42");
        running.shutdown().await.unwrap();
        let attempts: Vec<u32> = seen.take().into_iter().map(|(attempt, _)| attempt).collect();
        assert_eq!(attempts, (1..=10).collect::<Vec<_>>());
    }
}

/// Runs an app that cannot forward its message, and returns when the delays between its attempts are long.
async fn stuck(broker: &Waiting, capture: &Capture) -> Running {
    let down = Down::new(usize::MAX);
    let tried = Arc::clone(&down.times);
    let app = App::new().subscribe(Channel::new("orders"), fail.middleware(down)).with_state(Seen::new());
    let running = broker.run(app, capture, &["42"]).await;
    while tried.load(Ordering::SeqCst) > usize::MAX - 12 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running
}

/// The place may be missing for as long as it likes: whoever waits for it gives the message up when another member gets it.
#[tokio::test(start_paused = true)]
async fn a_message_that_waits_to_be_forwarded_is_given_up_when_another_member_gets_it() {
    let ((broker, mut calls), capture) = (Waiting::new(true), Capture::new());
    let running = stuck(&broker, &capture).await;
    let withdrawn = Instant::now();
    broker.is_withdrawn.store(true, Ordering::SeqCst);
    assert_eq!(next(&mut calls).await, "42 is given up");
    assert!(withdrawn.elapsed() < Duration::from_millis(100), "{:?}: the delay is 15 s at least", withdrawn.elapsed());
    running.shutdown().await.unwrap();
    assert!(calls.try_recv().is_err());
}

/// It is not settled at the end either, and the end does not wait for its next attempt.
#[tokio::test(start_paused = true)]
async fn a_message_that_waits_to_be_forwarded_is_given_up_when_the_app_ends() {
    let ((broker, mut calls), capture) = (Waiting::new(true), Capture::new());
    let running = stuck(&broker, &capture).await;
    let ended = Instant::now();
    running.shutdown().await.unwrap();
    assert!(ended.elapsed() < Duration::from_millis(100), "{:?}: the delay is 15 s at least", ended.elapsed());
    assert_eq!(next(&mut calls).await, "42 is given up");
    assert!(calls.try_recv().is_err());
    let handled = capture.tree();
    assert!(handled.find_all("process orders").iter().all(|span| attribute(span, "error.type").is_some()));
}

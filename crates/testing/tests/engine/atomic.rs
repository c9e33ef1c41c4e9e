//! Publishing and settling in one transaction: when the framework takes back what a failed attempt published.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{
    BoxFuture, Broker, Publish, PublishErrorKind, Received, RetryPlace, RetryRoute, Settle, Subscriber, Subscription,
};
use throughline_core::extract::{Batch, State};
use throughline_core::message::{Source, System};
use throughline_core::middleware::{Next, Retry};
use throughline_core::telemetry::SettleSpans;
use throughline_core::{
    App, BrokerError, Delivery, Envelope, Handler, Middleware, Outcome, PublishError, Publisher, Receipt, RetryPolicy,
    Settlement, serve,
};
use throughline_memory::{Channel, Memory, SettledMessage};
use throughline_testing::{Capture, attribute};
use tokio::time::Instant;

use crate::altered::{Altered, settled_by};
use crate::support::Seen;

const LONG: Duration = Duration::from_secs(3600);

/// The in-memory broker, with a transport that says what it is called for. Nothing is really taken back.
#[derive(Clone)]
struct Atomic {
    memory: Memory,
    calls: Seen<String>,
    is_atomic: bool,
    /// Whether failed messages wait at `later`.
    waits: bool,
    /// How often they cannot be forwarded there.
    fails: Arc<AtomicUsize>,
}

impl Atomic {
    fn new() -> Self {
        Self { memory: Memory::recording(), calls: Seen::new(), is_atomic: true, waits: false, fails: Arc::default() }
    }

    /// Runs an app until so many messages are settled.
    async fn run(&self, app: App, messages: &[&'static str], count: usize) -> Vec<SettledMessage> {
        let running = serve(self.clone(), app.without_telemetry()).start().await.unwrap();
        let publisher = self.memory.publisher().without_telemetry();
        publisher.publish_batch("orders", messages.iter().copied()).await.unwrap();
        let settled = self.memory.settled_within(count, LONG).await.unwrap();
        running.shutdown().await.unwrap();
        settled
    }
}

#[async_trait]
impl Broker for Atomic {
    fn transport(&self) -> Arc<dyn Publish> {
        panic!("the subscription has a transport of its own")
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(AtomicSubscriber { inner, broker: self.clone() }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

struct AtomicSubscriber {
    inner: Box<dyn Subscriber>,
    broker: Atomic,
}

#[async_trait]
impl Subscriber for AtomicSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn redelivers(&self) -> bool {
        true
    }

    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        self.broker.waits.then(|| Arc::new(Later) as _)
    }

    fn transport(&self) -> Option<Arc<dyn Publish>> {
        Some(Arc::new(self.broker.clone()))
    }

    /// One with the body `last` ends its batch.
    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let received = self.inner.receive().await?;
        Ok(if received.delivery.payload() == "last" { received.with_batch_end() } else { received })
    }
}

struct Later;

impl RetryRoute for Later {
    fn place(&self, _message: &Delivery, _after: Option<Duration>) -> Option<RetryPlace> {
        Some(RetryPlace::new("later", Duration::ZERO))
    }
}

#[async_trait]
impl Publish for Atomic {
    fn system(&self) -> Arc<System> {
        self.memory.transport().system()
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let body = String::from_utf8_lossy(envelope.payload()).into_owned();
            let name = envelope.destination().name();
            if name == "later" && self.fails.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                self.calls.push(format!("{name} {body} fails"));
                return Err(PublishError::new(PublishErrorKind::NotFound, "not_found", "no such place"));
            }
            self.calls.push(format!("{name} {body}"));
            Ok(Receipt::new())
        })
    }

    fn is_atomic(&self) -> bool {
        self.is_atomic
    }

    async fn discard(&self) {
        self.calls.push("discard".to_owned());
    }
}

fn soon() -> RetryPolicy {
    RetryPolicy::new().first_delay(Duration::from_millis(1))
}

fn retry() -> Retry {
    Retry::new(soon())
}

/// Publishes each attempt and fails two of them.
async fn third_time(order: String, delivery: Delivery, publisher: Publisher) -> Result<(), PublishError> {
    publisher.publish("done", format!("{order} {}", delivery.attempt())).await?;
    publisher.publish("done", "again").await?;
    if delivery.attempt() < 3 {
        return Err(PublishError::new(PublishErrorKind::Other, "_OTHER", "not yet"));
    }
    Ok(())
}

/// Rejects the message `bad`, singly or in a batch.
async fn inspect(batch: Batch<String>) {
    for message in batch {
        let is_bad = message.body().starts_with("bad");
        message.settle(if is_bad { Settlement::reject("bad") } else { Settlement::Ack });
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_place_begins_with_nothing_published() {
    let broker = Atomic::new();
    let app = App::new().subscribe(Channel::new("orders"), third_time.middleware(retry()));
    let settled = broker.run(app, &["42"], 1).await;
    assert_eq!(settled[0].settlement, Settlement::Ack);
    let expected =
        ["done 42 1", "done again", "discard", "done 42 2", "done again", "discard", "done 42 3", "done again"];
    assert_eq!(broker.calls.take(), expected);
}

/// Middleware of a user that runs a delivery again can do as the framework's own does.
#[tokio::test(start_paused = true)]
async fn middleware_can_take_back_what_an_attempt_published() {
    struct Twice;
    #[async_trait]
    impl Middleware for Twice {
        async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
            let outcome = next.run(delivery.clone()).await;
            if outcome.failure().is_none() {
                return outcome;
            }
            next.discard().await;
            next.run(delivery.with_attempt(3)).await
        }
    }
    let broker = Atomic::new();
    let app = App::new().subscribe(Channel::new("orders"), third_time.middleware(Twice));
    broker.run(app, &["42"], 1).await;
    assert_eq!(broker.calls.take(), ["done 42 1", "done again", "discard", "done 42 3", "done again"]);
}

#[tokio::test(start_paused = true)]
async fn where_messages_count_at_once_nothing_is_taken_back() {
    let broker = Atomic { is_atomic: false, ..Atomic::new() };
    let route = third_time.middleware(Retry::new(soon().attempts(2))).dead_letter("dead");
    broker.run(App::new().subscribe(Channel::new("orders"), route), &["42"], 1).await;
    assert_eq!(broker.calls.take(), ["done 42 1", "done again", "done 42 2", "done again", "dead 42"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_all_that_stays_of_a_message() {
    let broker = Atomic::new();
    let route = third_time.middleware(Retry::new(soon().attempts(1))).dead_letter("dead");
    let settled = broker.run(App::new().subscribe(Channel::new("orders"), route), &["42"], 1).await;
    assert_eq!(settled[0].settlement, Settlement::Ack);
    assert_eq!(broker.calls.take(), ["done 42 1", "done again", "discard", "dead 42"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_elsewhere_leaves_nothing_else() {
    let broker = Atomic { waits: true, ..Atomic::new() };
    let settled = broker.run(App::new().subscribe(Channel::new("orders"), third_time), &["42"], 1).await;
    assert_eq!(settled[0].settlement, Settlement::Ack);
    assert_eq!(broker.calls.take(), ["done 42 1", "done again", "discard", "later 42"]);
}

/// The failed forward is taken back with all else, and the broker does not hear of it: it would count an attempt.
#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_forwarded_is_forwarded_again_in_another_transaction() {
    let broker = Atomic { waits: true, fails: Arc::new(AtomicUsize::new(12)), ..Atomic::new() };
    let settled = broker.run(App::new().subscribe(Channel::new("orders"), third_time), &["42"], 1).await;
    assert_eq!((settled[0].delivery.attempt(), &settled[0].settlement), (1, &Settlement::Ack));
    let failed = ["later 42 fails", "discard"].repeat(12);
    let expected = [&["done 42 1", "done again", "discard"][..], &failed, &["later 42"]].concat();
    assert_eq!(broker.calls.take(), expected);
}

/// What was forwarded is taken back with what could not be.
#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_forwarded_as_a_whole_is_forwarded_again_as_a_whole() {
    async fn fail(_batch: Batch<String>) -> Result<(), std::fmt::Error> {
        Err(std::fmt::Error)
    }
    let broker = Atomic { waits: true, fails: Arc::new(AtomicUsize::new(1)), ..Atomic::new() };
    let settled = broker.run(App::new().subscribe(batches(2), fail), &["1", "2"], 2).await;
    assert!(settled.iter().all(|message| message.settlement == Settlement::Ack), "{settled:?}");
    let expected = ["discard", "later 1 fails", "later 2", "discard", "later 1", "later 2"];
    assert_eq!(broker.calls.take(), expected);
}

fn batches(size: usize) -> Channel {
    Channel::new("orders").batch(size, Duration::from_secs(1))
}

/// What was published for the others cannot be kept, so the message must come alone before it is forwarded.
#[tokio::test(start_paused = true)]
async fn of_a_batch_nothing_is_forwarded_before_it_comes_alone() {
    let broker = Atomic::new();
    let app = App::new().subscribe(batches(2), inspect.dead_letter("dead"));
    let settled = broker.run(app, &["good", "bad"], 3).await;
    let shown: Vec<_> = settled.iter().map(|message| (message.delivery.attempt(), &message.settlement)).collect();
    let at_once = Settlement::retry_after(Duration::ZERO);
    assert_eq!(shown, [(1, &Settlement::Ack), (1, &at_once), (2, &Settlement::Ack)]);
    assert_eq!(broker.calls.take(), ["discard", "dead bad"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_which_all_are_given_up_is_forwarded() {
    let broker = Atomic::new();
    let app = App::new().subscribe(batches(2), inspect.dead_letter("dead"));
    let settled = broker.run(app, &["bad 1", "bad 2"], 2).await;
    assert!(settled.iter().all(|message| message.settlement == Settlement::Ack), "{settled:?}");
    assert_eq!(broker.calls.take(), ["discard", "dead bad 1", "dead bad 2"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_nothing_waits_elsewhere_before_it_comes_alone() {
    async fn handle(batch: Batch<String>) {
        for message in batch {
            let is_bad = message.body() == "bad";
            message.settle(if is_bad { Settlement::retry_after(LONG) } else { Settlement::Ack });
        }
    }
    let broker = Atomic { waits: true, ..Atomic::new() };
    let settled = broker.run(App::new().subscribe(batches(2), handle), &["good", "bad"], 3).await;
    let at_once = Settlement::retry_after(Duration::ZERO);
    assert_eq!(settled[1].settlement, at_once, "not after the delay of the attempt it is not given yet");
    assert_eq!(broker.calls.take(), ["discard", "later bad"]);
}

/// An adapter that knows which messages belong together ends their batch.
#[tokio::test(start_paused = true)]
async fn a_batch_ends_with_the_message_that_says_so() {
    async fn count(batch: Batch<String>, State(seen): State<Seen<usize>>) {
        seen.push(batch.len());
    }
    let seen = Seen::new();
    let broker = Atomic::new();
    let app = App::new().subscribe(batches(3), count).with_state(seen.clone());
    broker.run(app, &["1", "last", "last", "4", "5", "6"], 6).await;
    assert_eq!(seen.take(), [2, 1, 3]);
}

/// One settlement that stands for others is the only one in the trace (SPAN-33).
#[tokio::test]
async fn a_settlement_that_was_only_noted_is_not_shown() {
    /// Tells the broker of the message `last` alone.
    struct OfLast(Arc<dyn Settle>);

    impl Settle for OfLast {
        fn settle<'a>(
            &'a self,
            message: &'a Received,
            settlement: &'a Settlement,
        ) -> BoxFuture<'a, Result<(), BrokerError>> {
            self.0.settle(message, settlement)
        }
        fn is_deferred(&self, message: &Received) -> bool {
            message.delivery.payload() != "last"
        }
    }

    async fn ignore(_batch: Batch<String>) {}
    let (capture, memory) = (Capture::new(), Memory::recording());
    let telemetry = capture.instrumentation().settle_spans(SettleSpans::Always).build();
    let app = App::new().subscribe(batches(3), ignore).telemetry(telemetry);
    let running = serve(Altered::new(&memory, |received| settled_by(received, OfLast)), app).start().await.unwrap();
    let messages = ["1", "2", "last"].map(|body| Envelope::new("orders", body).with_id(body));
    for message in messages {
        memory.publisher().without_telemetry().publish_envelope(message).await.unwrap();
    }
    memory.settled_within(3, LONG).await.unwrap();
    running.shutdown().await.unwrap();
    let tree = capture.tree();
    let shown: Vec<_> =
        tree.find_all("ack orders").into_iter().map(|span| attribute(span, "messaging.message.id")).collect();
    assert_eq!(shown, [Some(&"last".into())]);
}

/// An error reply that cannot be published would take the rejection with it, so there is none.
#[tokio::test(start_paused = true)]
async fn in_a_transaction_a_requester_is_not_told_that_its_request_failed() {
    async fn reject(_order: String) -> Settlement {
        Settlement::reject("no")
    }
    for is_atomic in [true, false] {
        let broker = Atomic { is_atomic, ..Atomic::new() };
        let running = serve(broker.clone(), App::new().without_telemetry().subscribe(Channel::new("orders"), reject));
        let running = running.start().await.unwrap();
        let publisher = broker.memory.publisher().without_telemetry();
        publisher.publish_envelope(Envelope::new("orders", "42").with_reply_to("answers")).await.unwrap();
        let settled = broker.memory.settled_within(1, LONG).await.unwrap();
        assert_eq!(settled[0].settlement, Settlement::reject("no"));
        running.shutdown().await.unwrap();
        let expected: &[&str] = if is_atomic { &[] } else { &["answers "] };
        assert_eq!(broker.calls.take(), expected);
    }
}

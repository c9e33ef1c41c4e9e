//! The failure rule as the user sets it, and what of it is in the trace.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use opentelemetry::trace::Status;
use throughline_core::broker::{
    Broker, Publish, PublishErrorKind, Received, RetryPlace, RetryRoute, Subscriber, Subscription,
};
use throughline_core::extract::{Batch, State};
use throughline_core::message::Source;
use throughline_core::middleware::{Next, NextPublish, Retry};
use throughline_core::{
    App, BrokerError, Delivery, Envelope, Failure, Handler, Middleware, Outcome, PublishError, Receipt, RetryPolicy,
    Router, ServeErrorKind, Settlement, serve,
};
use throughline_memory::{Channel, Memory, SettledMessage};
use throughline_testing::{AppTest, Capture, attribute, start};
use tokio::time::Instant;

use crate::support::{Log, Seen, point};

type Failed = Result<(), std::fmt::Error>;

/// Longer than all attempts take.
const LONG: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

async fn fail(_order: String) -> Failed {
    Err(std::fmt::Error)
}

/// Delays of 1 s, 2 s, 4 s.
fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy::new().attempts(attempts).first_delay(SECOND).jitter(0.0)
}

/// What the broker was told about one message, given so many settlements.
async fn told(app: App, count: usize) -> Vec<Settlement> {
    let test = start(app).await;
    test.publish("orders", "42").await;
    settled(&test, count).await.into_iter().map(|message| message.settlement).collect()
}

async fn settled(test: &AppTest, count: usize) -> Vec<SettledMessage> {
    let settled = test.broker().settled_within(count, LONG).await.unwrap();
    test.settle().await;
    assert_eq!(test.broker().settled().len(), count, "and no more");
    settled
}

fn after(seconds: u64) -> Settlement {
    Settlement::retry_after(Duration::from_secs(seconds))
}

fn gave_up(attempts: u32) -> Settlement {
    Settlement::reject(format!("failed {attempts} times"))
}

/// Counts how often something is handled.
#[derive(Clone)]
struct Count(Seen<String>);

#[tokio::test(start_paused = true)]
async fn an_app_says_how_often_and_when() {
    let app = App::new().retry(policy(3)).subscribe(Channel::new("orders"), fail);
    assert_eq!(told(app, 3).await, [after(1), after(2), gave_up(3)]);
}

#[tokio::test(start_paused = true)]
async fn the_narrowest_policy_holds() {
    let app = || App::new().retry(policy(9));
    let by_subscription = app().subscribe(Channel::new("orders"), fail.retry(policy(2)));
    assert_eq!(told(by_subscription, 2).await, [after(1), gave_up(2)]);
    let inner = || Router::new().subscribe(Channel::new("orders"), fail);
    let by_router = app().nest("", Router::new().nest("", inner().retry(policy(2))).retry(policy(5)));
    assert_eq!(told(by_router, 2).await, [after(1), gave_up(2)]);
    let by_outer_router = app().nest("", Router::new().nest("", inner()).retry(policy(2)));
    assert_eq!(told(by_outer_router, 2).await, [after(1), gave_up(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_one_attempt_gives_up_at_once() {
    let app = App::new().subscribe(Channel::new("orders"), fail.retry(RetryPolicy::never()));
    assert_eq!(told(app, 1).await, [Settlement::reject("failed once")]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_to_retry_has_no_bound_and_the_delays_of_the_policy() {
    async fn later(delivery: Delivery) -> Settlement {
        if delivery.attempt() < 4 { Settlement::retry() } else { Settlement::Ack }
    }
    let app = App::new().subscribe(Channel::new("orders"), later.retry(policy(1)));
    assert_eq!(told(app, 4).await, [after(1), after(2), after(4), Settlement::Ack]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_worth_it_is_given_up_at_once() {
    let picky = RetryPolicy::new().retry_if(|failure: &Failure| !failure.error().is::<std::fmt::Error>());
    let test = start(App::new().subscribe(Channel::new("orders"), fail.retry(picky.clone()).dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    let dead = test.next_delivery("dead").await;
    let reason = "failed once, and the retry policy does not try such a failure again";
    assert_eq!(dead.headers().get("dead-letter-reason"), Some(reason));
    assert_eq!(dead.headers().get("dead-letter-error"), Some("core::fmt::Error"));
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);

    let in_place = App::new().subscribe(Channel::new("orders"), fail.middleware(Retry::new(picky)));
    assert_eq!(told(in_place, 1).await, [Settlement::reject(reason)]);
}

/// The user's code may do what it likes: the message is tried again, and the log says so once.
#[tokio::test(start_paused = true)]
async fn a_predicate_that_panics_counts_as_yes() {
    let log = Log::listen();
    let broken = policy(3).retry_if(|_| panic!("on purpose"));
    let app = App::new().subscribe(Channel::new("orders"), fail.retry(broken));
    assert_eq!(told(app, 3).await, [after(1), after(2), gave_up(3)]);
    let said = |line: &&String| line.contains("the predicate of a `RetryPolicy`");
    assert_eq!(log.errors().iter().filter(said).count(), 1, "{:?}", log.errors());
}

/// Fails what is `bad`, alone.
async fn inspect(batch: Batch<String>, State(Count(seen)): State<Count>) {
    for message in batch {
        seen.push(message.body().clone());
        message.run(async |body| if body == "bad" { Err(std::fmt::Error) } else { Ok(()) }).await;
    }
}

/// Two attempts in place are two attempts, also where the broker delivers the second one.
#[tokio::test(start_paused = true)]
async fn what_fails_alone_in_a_batch_under_a_retry_is_judged_by_it() {
    let seen = Seen::new();
    let batches = Channel::new("orders").batch(2, SECOND);
    let route = inspect.middleware(Retry::new(policy(2))).dead_letter("dead");
    let test = start(App::new().subscribe(batches, route).with_state(Count(seen.clone()))).await;
    test.publisher().publish_batch("orders", ["good", "bad"]).await.unwrap();
    assert_eq!(test.next_delivery("dead").await.headers().get("dead-letter-reason"), Some("failed 2 times"));
    test.settle().await;
    assert_eq!(seen.take(), ["good", "bad", "bad"]);
}

/// The policy of the subscription holds for messages of a batch that fail alone, too.
#[tokio::test(start_paused = true)]
async fn what_fails_alone_in_a_batch_is_judged_by_the_policy() {
    let seen = Seen::new();
    let route = inspect.retry(policy(3)).dead_letter("dead");
    let app = App::new().subscribe(Channel::new("orders").batch(2, SECOND), route);
    let test = start(app.with_state(Count(seen.clone()))).await;
    test.publisher().publish_batch("orders", ["good", "bad"]).await.unwrap();
    assert_eq!(test.next_delivery("dead").await.headers().get("dead-letter-reason"), Some("failed 3 times"));
    test.settle().await;
    assert_eq!(seen.take(), ["good", "bad", "bad", "bad"]);
}

/// What fails outside of a `Retry` is judged by it as well, or two attempts in place would become ten deliveries.
#[tokio::test(start_paused = true)]
async fn what_fails_outside_of_a_retry_is_judged_by_it() {
    struct Strict;
    #[async_trait]
    impl Middleware for Strict {
        async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
            next.run(delivery).await;
            Outcome::failed(Failure::new("strict", "never content"))
        }
    }
    async fn succeed(_order: String) {}
    let route = succeed.middleware(Strict).middleware(Retry::new(policy(2)));
    let app = App::new().subscribe(Channel::new("orders"), route);
    assert_eq!(told(app, 2).await, [after(1), gave_up(2)]);
}

/// Of several, the one next to the handler.
#[tokio::test(start_paused = true)]
async fn the_innermost_retry_holds() {
    async fn count(_order: String, State(Count(seen)): State<Count>) -> Failed {
        seen.push("called".to_owned());
        Err(std::fmt::Error)
    }
    let seen = Seen::new();
    let app = App::new()
        .middleware(Retry::new(policy(7)))
        .subscribe(Channel::new("orders"), count.middleware(Retry::new(policy(2))))
        .with_state(Count(seen.clone()));
    assert_eq!(told(app, 1).await, [gave_up(2)]);
    assert_eq!(seen.take().len(), 2);
}

/// Refuses to publish a reply, and nothing else.
#[derive(Clone)]
struct NoReplies(Seen<Instant>);

#[async_trait]
impl Middleware for NoReplies {
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        if envelope.destination().name() != "replies" {
            return next.run(envelope).await;
        }
        self.0.push(Instant::now());
        Err(PublishError::new(PublishErrorKind::NotFound, "not_found", "no such place"))
    }
}

async fn answer(order: String, State(Count(seen)): State<Count>) -> String {
    seen.push(order.clone());
    order
}

/// The handler has done its work: only the reply is repeated, and the message ends with the reply's error.
#[tokio::test(start_paused = true)]
async fn attempts_that_are_set_bound_the_publishes_of_a_reply() {
    let (tried, seen) = (Seen::new(), Seen::new());
    let route = answer.reply_to("replies").middleware(NoReplies(tried.clone())).dead_letter("dead");
    let app = App::new().retry(policy(3)).subscribe(Channel::new("orders"), route).with_state(Count(seen.clone()));
    let test = start(app).await;
    test.publish("orders", "42").await;
    let dead = test.next_delivery("dead").await;
    let reason = dead.headers().get("dead-letter-reason").unwrap_or_default();
    assert!(reason.contains("its reply was not published in 3 attempts (not_found)"), "{reason}");
    assert_eq!(dead.headers().get("dead-letter-error"), Some("not_found"));
    assert_eq!(seen.take(), ["42"], "the handler ran once");
    let waits: Vec<u64> = tried.take().windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect();
    assert_eq!(waits, [1, 2], "with the policy's delays");
    let handled = test.trace().await;
    let handled = handled.find("process orders");
    assert_eq!(attribute(handled, "error.type"), Some(&"not_found".into()));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_names_no_attempts_repeats_a_reply_until_it_is_confirmed() {
    let (tried, seen) = (Seen::new(), Seen::new());
    let route = answer.reply_to("replies").middleware(NoReplies(tried.clone()));
    let policy = RetryPolicy::new().first_delay(SECOND).max_delay(SECOND).jitter(0.0);
    let app = App::new().subscribe(Channel::new("orders"), route.retry(policy)).with_state(Count(seen.clone()));
    let test = start(app).await;
    test.publish("orders", "42").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(tried.take().len() > 50, "more often than ten times");
    assert!(test.broker().settled().is_empty());
    assert_eq!(seen.take().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_failure_is_not_worth_it_is_given_up_at_once() {
    let (tried, seen) = (Seen::new(), Seen::new());
    let route = answer.reply_to("replies").middleware(NoReplies(tried.clone()));
    let picky = RetryPolicy::new().retry_if(|failure: &Failure| failure.error_type() != "not_found");
    let app = App::new().subscribe(Channel::new("orders"), route.retry(picky)).with_state(Count(seen.clone()));
    let told = told(app, 1).await;
    let [Settlement::Reject { reason }] = told.as_slice() else { panic!("{told:?}") };
    assert!(reason.contains("the retry policy does not try such a failure again"), "{reason}");
    assert_eq!((tried.take().len(), seen.take().len()), (1, 1));
}

/// The in-memory broker as one that delivers nothing again and, where it has a place for them, lets failed messages wait there.
#[derive(Clone)]
struct InPlace {
    memory: Memory,
    has_place: bool,
}

#[async_trait]
impl Broker for InPlace {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(InPlaceSubscriber { inner, has_place: self.has_place }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

struct InPlaceSubscriber {
    inner: Box<dyn Subscriber>,
    has_place: bool,
}

#[async_trait]
impl Subscriber for InPlaceSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        self.has_place.then(|| Arc::new(Later) as _)
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        self.inner.receive().await
    }
}

/// Failed messages wait at `later`, however often they fail.
struct Later;

impl RetryRoute for Later {
    fn place(&self, _message: &Delivery, _after: Option<Duration>) -> Option<RetryPlace> {
        Some(RetryPlace::new("later", Duration::ZERO))
    }
}

/// Runs an app on such a broker until one message is settled, and returns how.
async fn told_in_place(app: App, has_place: bool, capture: &Capture) -> Settlement {
    let memory = Memory::recording();
    let app = app.telemetry(capture.instrumentation().build());
    let running = serve(InPlace { memory: memory.clone(), has_place }, app).start().await.unwrap();
    memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
    let settled = memory.settled_within(1, LONG).await.unwrap();
    running.shutdown().await.unwrap();
    settled[0].settlement.clone()
}

/// Places where messages wait count for themselves; a second count for the same subscription is a mistake.
#[tokio::test(start_paused = true)]
async fn attempts_beside_places_that_count_are_refused_at_the_start() {
    let app = App::new().without_telemetry().subscribe(Channel::new("orders"), fail.retry(policy(3)));
    let broker = InPlace { memory: Memory::new(), has_place: true };
    let refused = serve(broker, app).start().await.unwrap_err();
    assert_eq!(refused.kind(), ServeErrorKind::Configuration);
}

#[tokio::test(start_paused = true)]
async fn where_messages_wait_elsewhere_the_app_does_not_count_but_its_predicate_holds() {
    let capture = Capture::new();
    let one_attempt = App::new().retry(policy(1)).subscribe(Channel::new("orders"), fail);
    assert_eq!(told_in_place(one_attempt, true, &capture).await, Settlement::Ack, "it waits");
    let picky = App::new().retry(RetryPolicy::new().retry_if(|_| false)).subscribe(Channel::new("orders"), fail);
    let settled = told_in_place(picky, true, &capture).await;
    assert!(matches!(settled, Settlement::Reject { .. }), "{settled:?}");
}

/// ATTR-C-27, ATTR-C-28, METR-19: attempts that the framework makes itself are process spans that say which they are and why.
#[tokio::test(start_paused = true)]
async fn further_attempts_say_which_they_are_and_why() {
    async fn third_time(delivery: Delivery) -> Result<(), Failure> {
        match delivery.attempt() {
            1 => Err(Failure::new("out_of_stock", "no bread")),
            2 => Err(Failure::new("no_power", "no light")),
            _ => Ok(()),
        }
    }
    let capture = Capture::new();
    let app = App::new().subscribe(Channel::new("orders"), third_time.retry(policy(3)));
    assert_eq!(told_in_place(app, false, &capture).await, Settlement::Ack);
    let tree = capture.tree();
    let mut spans = tree.find_all("process orders");
    spans.sort_by_key(|span| span.start_time);
    let shown = |key| spans.iter().map(|span| attribute(span, key).cloned()).collect::<Vec<_>>();
    assert_eq!(shown("throughline.attempt"), [None, Some(2.into()), Some(3.into())]);
    assert_eq!(shown("throughline.retry.cause"), [None, Some("out_of_stock".into()), Some("no_power".into())]);
}

/// ATTR-C-28: in place, too, and by the name that the user's hook gives.
#[tokio::test(start_paused = true)]
async fn the_span_of_an_attempt_in_place_says_why_there_is_one() {
    let capture = Capture::new();
    let telemetry = capture.instrumentation().error_type(|_| Some("fmt".into())).build();
    let route = fail.middleware(Retry::new(policy(2)));
    let memory = Memory::recording();
    let app = App::new().telemetry(telemetry).subscribe(Channel::new("orders"), route);
    let running = serve(memory.clone(), app).start().await.unwrap();
    memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
    memory.settled_within(1, LONG).await.unwrap();
    running.shutdown().await.unwrap();
    let tree = capture.tree();
    assert_eq!(attribute(tree.find("retry"), "throughline.retry.cause"), Some(&"fmt".into()));
    assert_eq!(attribute(tree.find("process orders"), "throughline.attempt"), None);
}

/// ATTR-C-27, ATTR-C-29: by the broker.
#[tokio::test(start_paused = true)]
async fn a_delivery_says_which_it_is_and_a_settlement_how_long_it_waits() {
    let test = start(App::new().subscribe(Channel::new("orders"), fail.retry(policy(3)))).await;
    test.publish("orders", "42").await;
    settled(&test, 3).await;
    let tree = test.capture().tree();
    let sorted = |name| {
        let mut spans = tree.find_all(name);
        spans.sort_by_key(|span| span.start_time);
        spans
    };
    let attempts: Vec<_> =
        sorted("process orders").iter().map(|span| attribute(span, "throughline.attempt").cloned()).collect();
    assert_eq!(attempts, [None, Some(2.into()), Some(3.into())]);
    let delays: Vec<_> =
        sorted("nack orders").iter().map(|span| attribute(span, "throughline.retry.delay").cloned()).collect();
    assert_eq!(delays, [Some(1.0.into()), Some(2.0.into()), None], "the last one is a rejection");
}

/// ATTR-C-27, LINK-15: in a batch it stands on the link of the message, since the others are at their first.
#[tokio::test]
async fn in_a_batch_each_message_says_its_attempt_on_its_link() {
    async fn take(_batch: Batch<String>) {}
    let traced = |trace: &str| format!("00-{trace}-00f067aa0ba902b7-01");
    let delivery = |body: &'static str, trace: &str| {
        let headers = throughline_core::Headers::from_iter([("traceparent".to_owned(), traced(trace))]);
        Delivery::new("orders", body).with_headers(headers)
    };
    let test = start(App::new().subscribe(Channel::new("orders").batch(2, SECOND), take)).await;
    test.broker().deliver(delivery("a", "4bf92f3577b34da6a3ce929d0e0e4736"));
    test.broker().deliver(delivery("b", "4bf92f3577b34da6a3ce929d0e0e4737").with_attempt(4));
    test.settle().await;
    let tree = test.capture().tree();
    let span = tree.find("process orders");
    assert_eq!(attribute(span, "throughline.attempt"), None);
    let on_links: Vec<_> = span
        .links
        .iter()
        .map(|link| {
            link.attributes.iter().find(|own| own.key.as_str() == "throughline.attempt").map(|own| own.value.clone())
        })
        .collect();
    assert_eq!(on_links, [None, Some(4.into())]);
}

/// METR-19: what waits for another attempt does not wait in the queue.
#[tokio::test]
async fn the_time_in_the_queue_is_that_of_the_first_delivery() {
    async fn take(_order: String) {}
    let test = start(App::new().subscribe(Channel::new("orders"), take)).await;
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    test.broker().deliver(Delivery::new("orders", "42").with_sent_at(an_hour_ago));
    test.broker().deliver(Delivery::new("orders", "42").with_sent_at(an_hour_ago).with_attempt(2));
    test.settle().await;
    assert_eq!(point(test.capture(), "throughline.queue.duration", &[]).count, 1);
    assert_eq!(point(test.capture(), "messaging.client.consumed.messages", &[]).sum, 2.0, "METR-15");
}

/// Publishes no dead letter: it is refused for good, or never answered.
#[derive(Clone, Copy)]
enum NoDead {
    Refuses,
    Hangs,
}

#[async_trait]
impl Middleware for NoDead {
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        match self {
            _ if envelope.destination().name() != "dead" => next.run(envelope).await,
            Self::Refuses => Err(PublishError::new(PublishErrorKind::TooLarge, "too_large", "too large")),
            Self::Hangs => std::future::pending().await,
        }
    }
}

/// STAT-22: the process span says why the message failed, not what became of its dead letter.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_published_leaves_the_error_of_the_handler() {
    for no_dead in [NoDead::Refuses, NoDead::Hangs] {
        let (memory, capture) = (Memory::recording(), Capture::new());
        let route = fail.retry(RetryPolicy::never()).middleware(no_dead).dead_letter("dead");
        let app = App::new().telemetry(capture.instrumentation().build()).subscribe(Channel::new("orders"), route);
        let running = serve(memory.clone(), app).shutdown_timeout(SECOND).start().await.unwrap();
        memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
        tokio::time::sleep(SECOND).await;
        let _ = running.shutdown().await;
        let tree = capture.tree();
        let handled = tree.find("process orders");
        assert_eq!(attribute(handled, "error.type"), Some(&"core::fmt::Error".into()));
        assert!(matches!(handled.status, Status::Error { .. }));
    }
}

/// STAT-21: an 88-character path says nothing.
#[tokio::test(start_paused = true)]
async fn an_erased_error_counts_as_other() {
    async fn fail(_order: String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("no bread")?;
        Ok(())
    }
    let test = start(App::new().subscribe(Channel::new("orders"), fail.retry(RetryPolicy::never()))).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    assert_eq!(attribute(tree.find("process orders"), "error.type"), Some(&"_OTHER".into()));
}

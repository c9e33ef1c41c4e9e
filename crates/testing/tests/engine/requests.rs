//! Requests: a failed one is answered with an error at once, and a slow one holds up no other one.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::{SpanKind, Status};
use throughline_core::broker::{Broker, Publish, PublishErrorKind, Received, Subscriber, Subscription};
use throughline_core::extract::{Batch, State};
use throughline_core::message::Source;
use throughline_core::middleware::{DeadLetter, NextPublish, Retry};
use throughline_core::{
    App, BrokerError, Delivery, Envelope, Failure, Handler, IntoRoute, Middleware, PublishError, Publisher, Receipt,
    RetryPolicy, Settlement, serve,
};
use throughline_memory::{Channel, Memory};
use throughline_testing::{AppTest, Capture, attribute, start};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{Log, Seen};

/// Longer than anything here takes when nothing has to be waited for.
const LONG: Duration = Duration::from_secs(3600);

async fn served<Args>(handler: impl IntoRoute<Args, ()>) -> AppTest {
    start(App::new().subscribe(Channel::new("prices.get"), handler)).await
}

async fn ask(publisher: &Publisher, body: &'static str) -> Result<String, PublishError> {
    publisher.request("prices.get", body).timeout(LONG).await
}

/// The code and the text that a request gets, which must fail at once.
async fn answer<Args>(handler: impl IntoRoute<Args, ()>) -> (Option<u16>, String) {
    let test = served(handler).await;
    let asked = Instant::now();
    let error = ask(test.publisher(), "bread").await.unwrap_err();
    assert_eq!((error.kind(), error.error_type()), (PublishErrorKind::RequestFailed, "request_failed"), "{error}");
    assert_eq!(asked.elapsed(), Duration::ZERO, "at once");
    let reply = error.error_reply().unwrap();
    assert!(reply.body().is_empty());
    (reply.code(), reply.text().to_owned())
}

fn private() -> Failure {
    Failure::new("out_of_stock", "row 7 of the table of Ms Smith")
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_is_answered_at_once_with_the_type_of_its_error() {
    async fn price(_item: String) -> Result<String, Failure> {
        Err(private())
    }
    assert_eq!(answer(price).await, (Some(500), "out_of_stock".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_says_what_a_requester_is_told() {
    async fn price(_item: String) -> Result<String, Failure> {
        Err(private().with_answer(404, "no such\r\nitem: Käse"))
    }
    async fn odd(_item: String) -> Result<String, Failure> {
        Err(private().with_answer(1000, "x".repeat(1000)))
    }
    assert_eq!(answer(price).await, (Some(404), "no such\\r\\nitem: Käse".to_owned()));
    assert_eq!(answer(odd).await, (Some(500), "x".repeat(200)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_decoded_is_the_requesters_fault() {
    async fn price(_item: throughline_core::extract::Json<u64>) -> String {
        "1.50".to_owned()
    }
    assert_eq!(answer(price).await, (Some(400), "decode_error".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_answered_without_its_text() {
    async fn price(_item: String) -> String {
        panic!("row 7")
    }
    assert_eq!(answer(price).await, (Some(500), "panic".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_answered_with_its_reason() {
    async fn price(_item: String) -> Settlement {
        Settlement::reject("closed today")
    }
    assert_eq!(answer(price).await, (Some(500), "closed today".to_owned()));
}

/// A deliberate retry is no failure.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_to_come_again_is_answered_when_it_is_handled() {
    async fn price(delivery: Delivery) -> Result<String, Settlement> {
        if delivery.attempt() < 3 { Err(Settlement::retry_after(Duration::from_secs(60))) } else { Ok("1.50".into()) }
    }
    let test = served(price).await;
    assert_eq!(ask(test.publisher(), "bread").await.unwrap(), "1.50");
}

/// What the user sets is what happens.
#[tokio::test(start_paused = true)]
async fn a_request_is_tried_again_where_the_user_wants_it() {
    async fn price(delivery: Delivery) -> Result<String, Failure> {
        if delivery.attempt() < 3 { Err(private()) } else { Ok("1.50".into()) }
    }
    let policy = |attempts| RetryPolicy::new().attempts(attempts);
    for route in [price.retry(policy(3)), price.middleware(Retry::new(policy(3))), price.retry(RetryPolicy::new())] {
        let test = served(route).await;
        assert_eq!(ask(test.publisher(), "bread").await.unwrap(), "1.50");
    }
    for route in [price.retry(policy(2)), price.middleware(Retry::new(policy(2)))] {
        let test = served(route).await;
        let error = ask(test.publisher(), "bread").await.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::RequestFailed);
    }
    let app = App::new().retry(policy(3)).subscribe(Channel::new("prices.get"), price);
    assert_eq!(ask(start(app).await.publisher(), "bread").await.unwrap(), "1.50");
}

/// SPAN-36, SPAN-38, ATTR-C-31: the reply belongs to the trace, and nobody's text is in it.
#[tokio::test(start_paused = true)]
async fn an_error_reply_is_in_the_trace_as_any_reply() {
    async fn price(_item: String) -> Result<String, Failure> {
        Err(private().with_answer(404, "secret word"))
    }
    let test = served(price).await;
    let publisher = test.publisher();
    let error = ask(publisher, "bread").await.unwrap_err();
    assert_eq!(error.to_string(), "`prices.get` answers that the request failed: 404 secret word");
    test.settle().await;

    let tree = test.capture().tree();
    let process = tree.find("process prices.get");
    assert_eq!(attribute(process, "error.type"), Some(&"out_of_stock".into()));
    let reply = tree.find("publish _INBOX");
    assert_eq!((&reply.span_kind, &reply.status), (&SpanKind::Producer, &Status::Unset));
    assert_eq!(tree.parent(reply).unwrap().name, process.name);
    let request = tree.find("request prices.get");
    assert_eq!(attribute(request, "error.type"), Some(&"request_failed".into()));
    assert_eq!(attribute(request, "throughline.reply.error_code"), Some(&404.into()));
    assert_eq!(request.status, Status::error(""));
    assert_eq!(tree.parent(process).unwrap().name, request.name);
    assert!(!format!("{:?}", test.capture().spans()).contains("secret word"));
    assert!(!format!("{:?}", test.capture().metrics()).contains("error_code"), "few series");

    let settled = test.broker().settled();
    let settled: Vec<_> = settled.iter().filter(|settled| settled.settlement != Settlement::Ack).collect();
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].settlement, Settlement::reject("failed once"));
}

/// ATTR-C-09: on any broker, when its rule ends; the sender may listen anywhere.
#[tokio::test(start_paused = true)]
async fn a_message_with_a_reply_address_is_answered_when_it_is_given_up() {
    async fn price(_item: String, State(seen): State<Seen<()>>) -> Result<String, Failure> {
        seen.push(());
        Err(private())
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("prices.get"), price).with_state(seen.clone())).await;
    let message = Envelope::new("prices.get", "bread").with_reply_to("answers").with_correlation_id("cart-7");
    test.publisher().publish_envelope(message).await.unwrap();
    // Time is virtual: all attempts are over by then.
    tokio::time::sleep(LONG).await;
    let reply = test.next_delivery("answers").await;
    assert_eq!((reply.header("reply-error-code"), reply.header("reply-error")), (Some("500"), Some("out_of_stock")));
    assert_eq!((reply.correlation_id(), reply.payload().len()), (Some("cart-7"), 0));
    assert_eq!(seen.take().len(), 10, "nobody waits here for an answer: it is tried as other messages are");
    test.settle().await;
    let tree = test.capture().tree();
    let reply = tree.find("publish");
    assert_eq!(attribute(reply, "messaging.message.conversation_id"), Some(&"cart-7".into()));
    assert_eq!(tree.parent(reply).unwrap().name, "process prices.get");
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_reply_address_is_not_answered() {
    async fn price(_item: String) -> Result<String, Failure> {
        Err(private().permanent())
    }
    let test = served(price.reply_to("copies")).await;
    test.publish("prices.get", "bread").await;
    test.settle().await;
    let sent: Vec<_> = test.capture().spans().into_iter().filter(|span| span.span_kind == SpanKind::Producer).collect();
    assert_eq!(sent.len(), 1, "the message itself: {sent:?}");
}

/// What somebody else answers, with a body of its own.
#[tokio::test(start_paused = true)]
async fn an_error_reply_may_have_a_body() {
    async fn price(_item: String) -> Envelope {
        Envelope::unaddressed("{\"why\":1}").with_header("Reply-Error-Code", "OUT_OF_STOCK").with_header("x", "y")
    }
    let test = served(price).await;
    let error = ask(test.publisher(), "bread").await.unwrap_err();
    let reply = error.error_reply().unwrap();
    assert_eq!((reply.code(), reply.code_text(), reply.text()), (None, "OUT_OF_STOCK", ""));
    assert_eq!(reply.body().as_ref(), b"{\"why\":1}");
    let spans = test.capture().spans();
    let request = spans.iter().find(|span| span.name == "request prices.get").unwrap();
    assert_eq!(attribute(request, "error.type"), Some(&"request_failed".into()));
    assert_eq!(attribute(request, "throughline.reply.error_code"), None, "a stranger's word");
}

/// Fails to publish to one kind of place, and counts how often.
struct Down {
    place: &'static str,
    tries: Arc<AtomicUsize>,
}

impl Down {
    fn at(place: &'static str) -> (Self, Arc<AtomicUsize>) {
        let tries = Arc::default();
        (Self { place, tries: Arc::clone(&tries) }, tries)
    }
}

#[async_trait]
impl Middleware for Down {
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        if !envelope.destination().name().starts_with(self.place) {
            return next.run(envelope).await;
        }
        self.tries.fetch_add(1, Ordering::SeqCst);
        Err(PublishError::new(PublishErrorKind::Disconnected, "disconnected", "no connection"))
    }
}

async fn failing(_item: String) -> Result<String, Failure> {
    Err(private())
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_becomes_a_dead_letter() {
    for route in [failing.dead_letter("prices.dead"), failing.middleware(DeadLetter::to("prices.dead"))] {
        let test = served(route).await;
        let error = ask(test.publisher(), "bread").await.unwrap_err();
        assert_eq!(error.error_reply().and_then(|reply| reply.code()), Some(500));
        assert_eq!(test.next::<String>("prices.dead").await, "bread");
    }
}

/// The requester does not wait for the dead letter, which may take long.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_away_does_not_hold_up_the_answer() {
    let (down, tries) = Down::at("prices.dead");
    let test = served(failing.dead_letter("prices.dead").middleware(down)).await;
    let asked = Instant::now();
    let error = ask(test.publisher(), "bread").await.unwrap_err();
    assert_eq!((error.kind(), asked.elapsed()), (PublishErrorKind::RequestFailed, Duration::ZERO));
    while tries.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let requests = test.capture().spans().into_iter().filter(|span| span.name == "publish _INBOX");
    assert_eq!(requests.count(), 1, "once");
}

/// The answer is tried once, and its failure changes nothing.
#[tokio::test(start_paused = true)]
async fn an_error_reply_that_fails_is_one_line_in_the_log() {
    let log = Log::listen();
    let (down, tries) = Down::at("answers");
    let test = served(failing.middleware(down).retry(RetryPolicy::never())).await;
    let message = Envelope::new("prices.get", "bread").with_reply_to("answers");
    test.publisher().publish_envelope(message).await.unwrap();
    test.settle().await;
    let settled: Vec<_> = test.broker().settled().into_iter().map(|settled| settled.settlement).collect();
    assert!(settled.contains(&Settlement::reject("failed once")), "{settled:?}");
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    let lines: Vec<_> = log.warnings().into_iter().filter(|line| line.contains("a requester was not told")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("no connection") && lines[0].contains("prices.get"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_an_error_reply_is_published_changes_nothing() {
    struct Bomb;

    #[async_trait]
    impl Middleware for Bomb {
        async fn publish(&self, _envelope: Envelope, _next: NextPublish<'_>) -> Result<Receipt, PublishError> {
            panic!("on purpose")
        }
    }

    let log = Log::listen();
    let test = served(failing.middleware(Bomb)).await;
    let publisher = test.publisher();
    assert!(publisher.request::<String>("prices.get", "bread").await.unwrap_err().is_timeout());
    test.settle().await;
    let settled: Vec<_> = test.broker().settled().into_iter().map(|settled| settled.settlement).collect();
    assert!(settled.contains(&Settlement::reject("failed once")), "{settled:?}");
    assert_eq!(log.warnings().iter().filter(|line| line.contains("a requester was not told")).count(), 1);
}

/// What handlers pass one by one, as they are let.
#[derive(Clone)]
struct Gate {
    begun: Seen<String>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn closed() -> Self {
        Self { begun: Seen::new(), open: Arc::new(Semaphore::new(0)) }
    }

    async fn pass(&self, body: String) -> String {
        self.begun.push(body.clone());
        self.open.acquire().await.unwrap().forget();
        body
    }
}

async fn gated(item: String, State(gate): State<Gate>) -> String {
    if item == "fast" { item } else { gate.pass(item).await }
}

/// Waits until nothing moves any more.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_does_not_hold_up_the_next_one() {
    let gate = Gate::closed();
    let test = start(App::new().subscribe(Channel::new("prices.get"), gated).with_state(gate.clone())).await;
    let publisher = test.publisher();
    let slow = ask(publisher, "slow");
    let fast = async {
        let answer = ask(publisher, "fast").await.unwrap();
        assert_eq!(gate.begun.take(), ["slow"], "it is still being handled");
        gate.open.add_permits(1);
        answer
    };
    let (slow, fast) = tokio::join!(slow, fast);
    assert_eq!((slow.unwrap().as_str(), fast.as_str()), ("slow", "fast"));
}

#[tokio::test(start_paused = true)]
async fn so_many_requests_are_handled_at_the_same_time_and_no_more() {
    let gate = Gate::closed();
    let test = start(App::new().subscribe(Channel::new("prices.get"), gated).with_state(gate.clone())).await;
    let publisher = test.publisher();
    let requests = (0..70).map(|_| ask(publisher, "slow"));
    let watch = async {
        quiet().await;
        assert_eq!(gate.begun.take().len(), 64);
        gate.open.add_permits(3);
        quiet().await;
        assert_eq!(gate.begun.take().len(), 3);
        gate.open.add_permits(67);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(requests), watch);
    assert!(answers.iter().all(|answer| answer.as_deref().is_ok_and(|body| body == "slow")));
}

#[tokio::test(start_paused = true)]
async fn what_the_user_sets_bounds_requests_too() {
    for most in [1, 2] {
        let gate = Gate::closed();
        let app = App::new().subscribe(Channel::new("prices.get"), gated.concurrency(most)).with_state(gate.clone());
        let test = start(app).await;
        let publisher = test.publisher();
        let watch = async {
            for _ in 0..4 / most {
                quiet().await;
                assert_eq!(gate.begun.take().len(), most);
                gate.open.add_permits(most);
            }
        };
        let requests = ["1", "2", "3", "4"].map(|body| ask(publisher, body));
        let (answers, ()) = tokio::join!(futures_util::future::join_all(requests), watch);
        assert!(answers.iter().all(Result::is_ok));
    }
}

/// Other messages keep their order, whatever requests are there.
#[tokio::test(start_paused = true)]
async fn messages_that_nobody_waits_for_are_handled_one_at_a_time() {
    let gate = Gate::closed();
    let test = start(App::new().subscribe(Channel::new("prices.get"), gated).with_state(gate.clone())).await;
    let publisher = test.publisher();
    let request = ask(publisher, "asked");
    let others = async {
        quiet().await;
        publisher.publish_batch("prices.get", ["1", "2", "3"]).await.unwrap();
        for expected in [&["asked", "1"][..], &["2"], &["3"]] {
            quiet().await;
            assert_eq!(gate.begun.take(), expected);
            // The request is the first that waits, so it gets the first one.
            gate.open.add_permits(if expected.len() > 1 { 2 } else { 1 });
        }
    };
    let (request, ()) = tokio::join!(request, others);
    assert_eq!(request.unwrap(), "asked");
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_batch_has_its_own_answer() {
    async fn price(batch: Batch<String>) {
        for message in batch {
            let answer = |body: String| match body.as_str() {
                "bad" => Err(Failure::new("bad", "bad").with_answer(404, "no such item")),
                _ => Ok(format!("re: {body}")),
            };
            message.run(async |body| answer(body)).await;
        }
    }
    let channel = Channel::new("prices.get").batch(3, Duration::from_secs(1));
    let test = start(App::new().subscribe(channel, price)).await;
    let publisher = test.publisher();
    publisher.publish("prices.get", "nobody asks").await.unwrap();
    let (good, bad) = tokio::join!(ask(publisher, "good"), ask(publisher, "bad"));
    assert_eq!(good.unwrap(), "re: good");
    let bad = bad.unwrap_err();
    assert_eq!(bad.error_reply().map(|reply| (reply.code(), reply.text())), Some((Some(404), "no such item")));
}

/// A broker that forgets a message once it is handed out, as core NATS does.
#[derive(Clone)]
struct AtMostOnce(Memory);

struct Forgetful(Box<dyn Subscriber>);

#[async_trait]
impl Broker for AtMostOnce {
    fn transport(&self) -> Arc<dyn Publish> {
        self.0.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        Ok(Box::new(Forgetful(self.0.subscribe(subscription).await?)))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.0.shutdown().await
    }
}

#[async_trait]
impl Subscriber for Forgetful {
    fn source(&self) -> Arc<Source> {
        self.0.source()
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let mut received = self.0.receive().await?;
        received.settle(&Settlement::Ack).await.map(|()| received)
    }
}

async fn hanging(item: String) -> Result<String, Failure> {
    if item == "bad" {
        return Err(private());
    }
    pending().await
}

/// A request is not tried again in place; another message is.
#[tokio::test(start_paused = true)]
async fn where_nothing_is_delivered_again_a_request_is_answered_at_once_as_well() {
    let (memory, capture) = (Memory::new(), Capture::new());
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(Channel::new("prices.get"), hanging);
    let running = serve(AtMostOnce(memory.clone()), app).start().await.unwrap();
    let publisher = memory.publisher().without_telemetry();
    let asked = Instant::now();
    let error = ask(&publisher, "bad").await.unwrap_err();
    assert_eq!((error.kind(), asked.elapsed()), (PublishErrorKind::RequestFailed, Duration::ZERO));
    running.shutdown().await.unwrap();
    assert_eq!(capture.tree().find_all("process prices.get").len(), 1);
}

/// A handler that is dropped at the end of the app, where nobody else gets the message.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_at_the_end_is_answered() {
    let log = Log::listen();
    let (memory, capture) = (Memory::new(), Capture::new());
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(Channel::new("prices.get"), hanging);
    let app = serve(AtMostOnce(memory.clone()), app).shutdown_timeout(Duration::from_secs(5));
    let running = app.start().await.unwrap();
    let publisher = memory.publisher().without_telemetry();
    let ending = async {
        quiet().await;
        let begun = Instant::now();
        running.shutdown().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(4));
    };
    let (one, two, ()) = tokio::join!(ask(&publisher, "one"), ask(&publisher, "two"), ending);
    for answer in [one, two] {
        let error = answer.unwrap_err();
        let reply = error.error_reply().unwrap_or_else(|| panic!("{error}"));
        assert_eq!((reply.code(), reply.text()), (Some(503), "cancelled"));
    }
    let spans = capture.spans();
    let cancelled = spans.iter().filter(|span| attribute(span, "error.type") == Some(&"cancelled".into()));
    assert_eq!(cancelled.count(), 2);
    assert!(!log.warnings().iter().any(|line| line.contains("they are lost")), "{:?}", log.warnings());
}

/// A message that waits here for another attempt when the app ends is counted as lost, which it is.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_lost_while_it_waits_is_told_of() {
    let log = Log::listen();
    let memory = Memory::new();
    let app = App::new()
        .without_telemetry()
        .subscribe(Channel::new("prices.get"), async |_: String| Settlement::retry_after(LONG));
    let app = serve(AtMostOnce(memory.clone()), app).shutdown_timeout(Duration::from_secs(5));
    let running = app.start().await.unwrap();
    memory.publisher().without_telemetry().publish("prices.get", "bread").await.unwrap();
    quiet().await;
    running.shutdown().await.unwrap();
    let lost: Vec<_> = log.warnings().into_iter().filter(|line| line.contains("they are lost")).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("messages=1"), "{lost:?}");
}

//! Brokers that cannot do what they are asked: settling that fails, and no redelivery (STAT-14, SPAN-32; design, section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::Status;
use throughline_core::broker::{
    BoxFuture, Broker, BrokerErrorKind, Publish, Received, Settle, Subscriber, Subscription,
};
use throughline_core::extract::{Batch, State};
use throughline_core::message::Source;
use throughline_core::telemetry::Incoming;
use throughline_core::{App, BrokerError, Delivery, Handler, ServeErrorKind, Settlement, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::{Capture, attribute};
use tokio::time::Instant;

use crate::support::{Seen, ids, point, points};

/// The in-memory broker with a flaw.
#[derive(Clone)]
struct Flawed {
    memory: Memory,
    /// What settling answers; `None` where the broker knows no settlement.
    refusal: Option<&'static str>,
    redelivers: bool,
}

struct FlawedSubscriber {
    inner: Box<dyn Subscriber>,
    flaw: Flawed,
}

struct Refused(Arc<dyn Settle>, &'static str);

#[async_trait]
impl Broker for Flawed {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(FlawedSubscriber { inner, flaw: self.clone() }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

#[async_trait]
impl Subscriber for FlawedSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn redelivers(&self) -> bool {
        self.flaw.redelivers
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let mut received = self.inner.receive().await?;
        match self.flaw.refusal {
            Some(refusal) => {
                let tag = received.tag;
                Ok(match received.take_settle() {
                    Some(settle) => received.with_settle(Arc::new(Refused(settle, refusal)), tag),
                    None => received,
                })
            }
            // At most once: done as soon as it is handed out.
            None => received.settle(&Settlement::Ack).await.map(|()| received),
        }
    }
}

impl Settle for Refused {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            // The broker did it, but its answer was lost.
            self.0.settle(message, settlement).await?;
            Err(BrokerError::new(BrokerErrorKind::Timeout, self.1, "no answer within 5 s"))
        })
    }
}

/// Runs one app on a flawed broker until these messages are handled.
async fn run(flaw: Flawed, app: App, messages: &'static [&'static str]) -> Capture {
    let capture = Capture::new();
    let memory = flaw.memory.clone();
    let app = app.telemetry(capture.instrumentation().build());
    let running = serve(flaw, app).start().await.unwrap();
    let publisher = memory.publisher().without_telemetry();
    publisher.publish_batch("orders", messages.iter().copied()).await.unwrap();
    memory.idle().await;
    // What is still being handled is finished first.
    running.shutdown().await.unwrap();
    capture
}

/// SPAN-32, STAT-02, -05, -14, -15, -17: an acknowledgement that fails has a span, a warning and a metric with its error.
#[tokio::test]
async fn a_settlement_that_fails_is_seen() {
    async fn handle(_order: String) {}
    let flaw = Flawed { memory: Memory::new(), refusal: Some("timeout"), redelivers: true };
    let capture = run(flaw, App::new().subscribe(Channel::new("orders"), handle), &["42"]).await;
    let tree = capture.tree();
    let ack = tree.find("ack orders");
    assert_eq!(
        (attribute(ack, "error.type"), &ack.status),
        (Some(&"timeout".into()), &Status::error("no answer within 5 s"))
    );
    assert_eq!(tree.parent(ack).unwrap().name, "process orders");
    assert_eq!(tree.find("process orders").status, Status::Unset, "the handler did its part");
    let logs = capture.logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(
        (logs[0].event_name.as_deref(), logs[0].severity_number()),
        (Some("messaging.settle.exception"), Some(13))
    );
    assert_eq!((logs[0].trace_id.unwrap().to_string(), logs[0].span_id.unwrap().to_string()), ids(ack));
    let with = [("messaging.operation.name", "ack"), ("error.type", "timeout")];
    assert_eq!(point(&capture, "messaging.client.operation.duration", &with).count, 1);
}

/// STAT-14, -15: a pull that fails.
#[test]
fn a_pull_that_fails_is_seen() {
    let capture = Capture::new();
    let system = throughline_core::message::System::new("nats", throughline_core::message::Operations::DEFAULT);
    let consumer = capture.instrumentation().build().consumer(Arc::new(Source::new(Arc::new(system))));
    consumer.receive().fail(&BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer"));
    let tree = capture.tree();
    assert_eq!(tree.find("receive").status, Status::error("no answer"));
    let logs = capture.logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(
        (logs[0].event_name.as_deref(), logs[0].severity_number()),
        (Some("messaging.receive.exception"), Some(13))
    );
    let headers = std::collections::HashMap::<String, String>::new();
    consumer.receive().finish(&Incoming::new("orders", &headers));
    assert_eq!(capture.logs().len(), 1, "one that does not fail has no event");
}

/// Design, section 5: where the broker cannot deliver again, the message is tried again here, each time in a span of its own.
#[tokio::test(start_paused = true)]
async fn without_redelivery_a_message_is_tried_again_here() {
    async fn handle(
        order: String,
        delivery: Delivery,
        State(seen): State<Seen<(String, u32)>>,
    ) -> Result<(), std::fmt::Error> {
        seen.push((order.clone(), delivery.attempt()));
        if order == "1" && delivery.attempt() < 3 { Err(std::fmt::Error) } else { Ok(()) }
    }
    let seen = Seen::new();
    let flaw = Flawed { memory: Memory::new(), refusal: Some("lost"), redelivers: false };
    let app = App::new().subscribe(Channel::new("orders"), handle).with_state(seen.clone());
    let capture = run(flaw, app, &["1", "2"]).await;
    assert_eq!(seen.take(), [("1".into(), 1), ("1".into(), 2), ("1".into(), 3), ("2".into(), 1)]);
    assert_eq!(capture.tree().find_all("process orders").len(), 4);
    let settled =
        |settlement| points(&capture, "throughline.settled.messages", &[("throughline.settlement", settlement)]);
    assert_eq!((settled("retry")[0].sum, settled("ack")[0].sum), (2.0, 2.0));
}

/// The same for a batch: only what failed is tried again.
#[tokio::test(start_paused = true)]
async fn without_redelivery_only_the_failed_messages_of_a_batch_are_tried_again_here() {
    async fn handle(batch: Batch<String>, State(seen): State<Seen<Vec<String>>>) {
        seen.push(batch.iter().map(|message| message.body().clone()).collect());
        for message in batch {
            let is_first = message.delivery().attempt() == 1;
            message.run(async |body| if body == "2" && is_first { Err(std::fmt::Error) } else { Ok(()) }).await;
        }
    }
    let seen = Seen::new();
    let flaw = Flawed { memory: Memory::new(), refusal: Some("lost"), redelivers: false };
    let orders = Channel::new("orders").batch(3, Duration::from_secs(1));
    let app = App::new().subscribe(orders, handle.concurrency(1)).with_state(seen.clone());
    run(flaw, app, &["1", "2", "3"]).await;
    assert_eq!(seen.take(), [vec!["1".to_owned(), "2".into(), "3".into()], vec!["2".into()]]);
}

/// SPAN-09, METR-01: a broker that knows no settlement has no settle spans and no such measurements.
#[tokio::test]
async fn without_settlement_nothing_is_said_about_it() {
    async fn handle(_order: String) -> Settlement {
        Settlement::reject("no")
    }
    let flaw = Flawed { memory: Memory::new(), refusal: None, redelivers: false };
    let capture = run(flaw, App::new().subscribe(Channel::new("orders"), handle), &["42"]).await;
    assert_eq!(capture.spans().len(), 1);
    assert!(points(&capture, "messaging.client.operation.duration", &[]).is_empty());
}

/// The in-memory broker, which refuses some consumer when it begins.
#[derive(Clone)]
struct Strict {
    memory: Memory,
    subscribed: Arc<AtomicUsize>,
}

struct StrictSubscriber(Box<dyn Subscriber>, Arc<AtomicUsize>);

#[async_trait]
impl Broker for Strict {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(StrictSubscriber(inner, Arc::clone(&self.subscribed))))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

#[async_trait]
impl Subscriber for StrictSubscriber {
    fn source(&self) -> Arc<Source> {
        self.0.source()
    }

    async fn begin(&mut self) -> Result<(), BrokerError> {
        let others = self.1.load(Ordering::SeqCst);
        Err(BrokerError::configuration(format!("refused beside {others} subscriptions")))
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        panic!("it has not begun");
    }
}

/// A service does not start whose subscription is refused when all are there; it says which one it is.
#[tokio::test]
async fn a_subscription_that_may_not_begin_fails_the_start() {
    let broker = Strict { memory: Memory::new(), subscribed: Arc::default() };
    let app = App::new()
        .subscribe(Channel::new("orders"), async |_: Delivery| {})
        .subscribe(Channel::new("prices"), async |_: Delivery| {})
        .without_telemetry();
    let failed = serve(broker, app).start().await.unwrap_err();
    assert_eq!(failed.kind(), ServeErrorKind::Configuration);
    let text = failed.to_string();
    assert!(text.contains("`orders`") && text.contains("refused beside 2 subscriptions"), "{text}");
}

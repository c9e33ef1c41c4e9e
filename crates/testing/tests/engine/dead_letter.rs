//! Dead letters: where they go, what they carry, and that none is lost (SPAN-37, GOLD-X-09; design, section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::SpanData;
use throughline_core::broker::PublishErrorKind;
use throughline_core::extract::Batch;
use throughline_core::middleware::{DeadLetter, NextPublish};
use throughline_core::{App, Delivery, Envelope, Handler, Middleware, PublishError, Receipt, Settlement};
use throughline_memory::Channel;
use throughline_testing::{attribute, start};

use crate::support::{SPAN, TRACE, TRACEPARENT, links, point, publish_remote, traceparent};

const LONG: Duration = Duration::from_secs(3600);

async fn reject(_order: String) -> Settlement {
    Settlement::reject("ünknown\r\ntenant")
}

async fn fail(_order: String) -> Result<(), std::fmt::Error> {
    Err(std::fmt::Error)
}

/// SPAN-37, GOLD-X-09: the message goes on as it came, with the context of its producer; the send span links there.
#[tokio::test]
async fn a_dead_letter_is_the_message_as_it_came() {
    let test = start(App::new().subscribe(Channel::new("orders"), reject.dead_letter("dead"))).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let dead = test.next_delivery("dead").await;
    assert_eq!((dead.payload().as_ref(), traceparent(&dead)), (&b"42"[..], (TRACE.to_owned(), SPAN.to_owned())));
    assert_eq!(dead.headers().get("baggage"), Some("tenant=acme"));
    assert_eq!(dead.headers().get("dead-letter-origin"), Some("orders"));
    assert_eq!(
        dead.headers().get("dead-letter-reason"),
        Some("UTF-8''%C3%BCnknown%0D%0Atenant"),
        "safe on every broker"
    );
    assert_eq!(dead.header_text("dead-letter-reason").as_deref(), Some("ünknown\r\ntenant"));
    let tree = test.trace().await;
    let send = tree.find("publish dead");
    assert_eq!((&send.span_kind, links(send)), (&SpanKind::Client, vec![(TRACE.into(), SPAN.into())]));
    assert_eq!(tree.parent(send).unwrap().name, "process orders");
}

/// SPAN-37: without a context of its own it is an ordinary publish.
#[tokio::test]
async fn a_dead_letter_without_a_trace_gets_one() {
    let test = start(App::new().subscribe(Channel::new("orders"), reject.dead_letter("dead"))).await;
    crate::support::untraced(&test).publish("orders", "42").await.unwrap();
    let tree = test.trace().await;
    let send = tree.find("publish dead");
    assert_eq!((&send.span_kind, links(send)), (&SpanKind::Producer, vec![]));
    assert_eq!(traceparent(&test.next_delivery("dead").await), crate::support::ids(send));
}

/// Design, section 5: headers never pile up, however often a message becomes a dead letter.
#[tokio::test]
async fn headers_do_not_pile_up() {
    let app = App::new()
        .subscribe(Channel::new("orders"), reject.dead_letter("dead.1"))
        .subscribe(Channel::new("dead.1"), reject.dead_letter("dead.2"));
    let test = start(app).await;
    publish_remote(&test, "orders", "").await;
    let names = |delivery: &Delivery| delivery.headers().iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let (one, two) = (test.next_delivery("dead.1").await, test.next_delivery("dead.2").await);
    assert_eq!(names(&one), names(&two));
    assert_eq!(two.headers().get("dead-letter-origin"), Some("dead.1"));
    assert_eq!(two.headers().get("traceparent"), Some(TRACEPARENT));
}

/// Of a batch, each rejected message by itself, with its own context.
#[tokio::test]
async fn each_rejected_message_of_a_batch_is_a_dead_letter_of_its_own() {
    async fn handle(batch: Batch<String>) {
        for message in batch {
            let is_bad = message.body() == "bad";
            message.settle(if is_bad { Settlement::reject("bad") } else { Settlement::Ack });
        }
    }
    let batches = Channel::new("orders").batch(3, Duration::from_secs(5));
    let test = start(App::new().subscribe(batches, handle.dead_letter("dead"))).await;
    test.publisher().publish_batch("orders", ["good", "bad", "good"]).await.unwrap();
    test.settle().await;
    let _good = test.next_delivery("orders").await;
    let bad = test.next_delivery("orders").await;
    let dead = test.next_delivery("dead").await;
    assert_eq!((dead.payload().as_ref(), traceparent(&dead)), (&b"bad"[..], traceparent(&bad)));
    assert_eq!(test.capture().tree().find_all("publish dead").len(), 1);
}

/// Refuses to publish for a while.
struct Down(Arc<AtomicUsize>);

#[async_trait]
impl Middleware for Down {
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(PublishError::new(PublishErrorKind::Disconnected, "disconnected", "no connection")),
            Err(_) => next.run(envelope).await,
        }
    }
}

/// Refuses to publish, for good.
struct TooLarge;

#[async_trait]
impl Middleware for TooLarge {
    async fn publish(&self, _envelope: Envelope, _next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        Err(PublishError::new(PublishErrorKind::TooLarge, "too_large", "larger than the broker takes"))
    }
}

/// Design, section 5: a message whose dead letter cannot be published is settled when it can be, and not handled again for that.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_fails_is_published_again_and_nothing_else_is_done_again() {
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handled);
    let count = move |_order: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Settlement::reject("no") }
    };
    let down = Down(Arc::new(AtomicUsize::new(5)));
    let test = start(App::new().subscribe(Channel::new("orders"), count.middleware(down).dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    assert_eq!(test.next::<String>("dead").await, "42");
    test.settle().await;
    assert!(test.broker().settled().iter().all(|settled| settled.settlement == Settlement::Ack));
    assert_eq!(handled.load(Ordering::SeqCst), 1);
}

/// A reply that can never be published fails its message for good, which becomes a dead letter at once.
#[tokio::test(start_paused = true)]
async fn a_message_whose_reply_can_never_be_published_becomes_a_dead_letter() {
    async fn reply(_order: String) -> Envelope {
        Envelope::new("", "no destination")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reply.dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    let dead = test.next_delivery("dead").await;
    assert_eq!(
        (dead.payload().as_ref(), dead.headers().get("dead-letter-error")),
        (&b"42"[..], Some("invalid_destination"))
    );
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);
}

fn rejection(settlement: &Settlement) -> Option<&str> {
    match settlement {
        Settlement::Reject { reason } => Some(reason),
        _ => None,
    }
}

/// A dead letter that can never be published ends as a rejection with its reason, and is no further attempt of anything.
#[tokio::test(start_paused = true)]
async fn a_message_whose_dead_letter_can_never_be_published_is_rejected() {
    let test = start(App::new().subscribe(Channel::new("orders"), fail.middleware(TooLarge).dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    let settled = test.broker().settled_within(10, LONG).await.unwrap();
    let reasons: Vec<_> = settled.iter().filter_map(|settled| rejection(&settled.settlement)).collect();
    let [reason] = reasons.as_slice() else { panic!("{settled:?}") };
    assert!(reason.contains("too_large"), "{reason}");
    let tree = test.capture().tree();
    let said = |span: &&SpanData| attribute(span, "throughline.rejection.reason").is_some();
    assert_eq!(tree.find_all("process orders").into_iter().filter(said).count(), 1);
    assert_eq!(point(test.capture(), "throughline.settled.messages", &[("throughline.settlement", "reject")]).sum, 1.0);
}

/// Where the user wants it, the subscription ends instead, and the message stays.
#[tokio::test(start_paused = true)]
async fn a_subscription_may_stop_in_place_of_a_rejection() {
    let memory = throughline_memory::Memory::recording();
    let stopping = reject.middleware(TooLarge).dead_letter("dead").stop_if_unpublishable();
    let app = App::new().subscribe(Channel::new("orders").group("stock"), stopping);
    let running = throughline_core::serve(memory.clone(), app).start().await.unwrap();
    memory.publisher().publish("orders", "42").await.unwrap();
    let error = running.run_until(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), throughline_core::ServeErrorKind::Ended);
    assert_eq!(error.broker_error().map(|error| error.error_type().to_owned()), Some("unpublishable".to_owned()));
    assert!(memory.settled().is_empty(), "{:?}", memory.settled());
}

/// A message that came from the dead letter does not go there again: it would come round for ever.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_came_from_itself_is_rejected() {
    let looping = reject.middleware(DeadLetter::to("orders"));
    let test = start(App::new().subscribe(Channel::new("orders"), looping)).await;
    test.publish("orders", "42").await;
    test.settle().await;
    let settled = test.broker().settled();
    assert_eq!(settled.iter().filter_map(|settled| rejection(&settled.settlement)).count(), 1, "{settled:?}");
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);
}

/// Nor does one that came there by way of another service.
#[tokio::test(start_paused = true)]
async fn dead_letters_of_two_services_do_not_play_ping_pong() {
    let app = App::new()
        .subscribe(Channel::new("orders"), reject.middleware(DeadLetter::to("dead")))
        .subscribe(Channel::new("dead"), reject.middleware(DeadLetter::to("orders")));
    let test = start(app).await;
    test.publish("orders", "42").await;
    test.settle().await;
    let settled: Vec<Settlement> = test.broker().settled().into_iter().map(|settled| settled.settlement).collect();
    assert_eq!(settled.iter().filter(|settlement| matches!(settlement, Settlement::Reject { .. })).count(), 1);
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);
}

/// Design, section 5: a body that cannot be decoded goes to the dead letter at once.
#[tokio::test]
async fn a_body_that_cannot_be_decoded_becomes_a_dead_letter_at_once() {
    async fn handle(_order: throughline_core::extract::Json<u64>) {}
    let test = start(App::new().subscribe(Channel::new("orders"), handle.dead_letter("dead"))).await;
    test.publish("orders", "no number").await;
    let dead = test.next_delivery("dead").await;
    assert_eq!(dead.headers().get("dead-letter-reason"), Some("decode_error"));
    assert_eq!((dead.payload().as_ref(), dead.attempt()), (&b"no number"[..], 1));
}

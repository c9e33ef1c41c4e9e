//! Dead letters: where they go, what they carry, and that none is lost (SPAN-37, GOLD-X-09; design, section 5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::SpanKind;
use throughline_core::broker::PublishErrorKind;
use throughline_core::extract::Batch;
use throughline_core::middleware::{Middleware, NextPublish};
use throughline_core::{App, Delivery, Envelope, Handler, PublishError, Receipt, Settlement};
use throughline_memory::Channel;
use throughline_testing::start;

use crate::support::{SPAN, TRACE, TRACEPARENT, links, publish_remote, traceparent};

const LONG: Duration = Duration::from_secs(3600);

async fn reject(_order: String) -> Settlement {
    Settlement::reject("ünknown\r\ntenant")
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
    assert_eq!(dead.headers().get("dead-letter-reason"), Some("?nknown??tenant"), "safe on every broker");
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

/// Design, section 5: a message whose dead letter cannot be published is not settled as done; it comes back until it can be.
#[tokio::test(start_paused = true)]
async fn a_message_whose_dead_letter_cannot_be_published_comes_back_until_it_can() {
    let down = Down(Arc::new(AtomicUsize::new(15)));
    let test = start(App::new().subscribe(Channel::new("orders"), reject.middleware(down).dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    let settled = test.broker().settled_within(16, LONG).await.unwrap();
    assert!(settled[..15].iter().all(|message| matches!(message.settlement, Settlement::Retry { after: Some(_) })));
    assert_eq!(settled[15].settlement, Settlement::Ack);
    assert_eq!(test.next::<String>("dead").await, "42");
}

/// The same for a reply: out of attempts, the message becomes a dead letter and is not lost.
#[tokio::test(start_paused = true)]
async fn a_message_whose_reply_can_never_be_published_becomes_a_dead_letter() {
    async fn reply(_order: String) -> Envelope {
        Envelope::new(throughline_core::Destination::new("").with_native(()), "no destination")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reply.dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    assert_eq!(test.broker().settled_within(10, LONG).await.unwrap()[9].settlement, Settlement::Ack);
    assert_eq!(test.next::<String>("dead").await, "42");
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

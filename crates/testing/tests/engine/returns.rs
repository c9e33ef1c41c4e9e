//! What a handler may return, and where its replies go (design, section 4).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::SpanKind;
use serde::Serialize;
use throughline_core::broker::PublishErrorKind;
use throughline_core::extract::{Batch, Json};
use throughline_core::middleware::NextPublish;
use throughline_core::{App, BoxError, Envelope, Handler, IntoRoute, Middleware, PublishError, Receipt, Settlement};
use throughline_memory::{Channel, SettledMessage};
use throughline_testing::{AppTest, attribute, start};

#[derive(Debug)]
struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no bread")
    }
}

impl std::error::Error for OutOfStock {}

#[derive(Serialize)]
struct Reserved {
    order: u64,
}

async fn handled<Args>(handler: impl IntoRoute<Args, ()>) -> AppTest {
    let test = start(App::new().subscribe(Channel::new("orders"), handler)).await;
    test.publish("orders", "42").await;
    test
}

/// The first settlement of a message that a handler handled alone.
async fn settlement<Args>(handler: impl IntoRoute<Args, ()>) -> Settlement {
    let test = handled(handler).await;
    let settled = test.broker().settled_within(1, Duration::from_secs(10)).await.unwrap();
    let SettledMessage { settlement, .. } = settled[0].clone();
    settlement
}

async fn replies<Args>(handler: impl IntoRoute<Args, ()>, count: usize) -> Vec<String> {
    let test = handled(handler).await;
    let mut replies = Vec::new();
    for _ in 0..count {
        replies.push(test.next("replies").await);
    }
    test.settle().await;
    assert_eq!(test.capture().tree().find_all("publish replies").len(), count);
    replies
}

#[tokio::test]
async fn nothing_and_ok_acknowledge() {
    async fn nothing(_order: String) {}
    async fn ok(_order: String) -> Result<(), OutOfStock> {
        Ok(())
    }
    async fn none(_order: String) -> Option<String> {
        None
    }
    assert_eq!(settlement(nothing).await, Settlement::Ack);
    assert_eq!(settlement(ok).await, Settlement::Ack);
    assert_eq!(settlement(none).await, Settlement::Ack);
}

#[tokio::test]
async fn a_settlement_decides_as_value_and_as_error() {
    async fn reject(_order: String) -> Settlement {
        Settlement::reject("unknown tenant")
    }
    async fn later(_order: String) -> Result<String, Settlement> {
        Err(Settlement::retry_after(Duration::from_secs(30)))
    }
    async fn ack(_order: String) -> Result<Settlement, OutOfStock> {
        Ok(Settlement::Ack)
    }
    assert_eq!(settlement(reject).await, Settlement::reject("unknown tenant"));
    assert_eq!(settlement(later).await, Settlement::retry_after(Duration::from_secs(30)));
    assert_eq!(settlement(ack).await, Settlement::Ack);
}

#[tokio::test]
async fn any_error_is_tried_again_later() {
    async fn typed(_order: String) -> Result<(), OutOfStock> {
        Err(OutOfStock)
    }
    async fn boxed(_order: String) -> Result<(), BoxError> {
        Err(OutOfStock)?;
        Ok(())
    }
    async fn text(_order: String) -> Result<(), String> {
        Err("no bread".to_owned())
    }
    let later = |settlement| match settlement {
        Settlement::Retry { after: Some(delay) } => assert!(delay <= Duration::from_millis(100), "{delay:?}"),
        other => panic!("{other:?}"),
    };
    later(settlement(typed).await);
    later(settlement(boxed).await);
    later(settlement(text).await);
}

#[tokio::test]
async fn replies_are_texts_bytes_and_json() {
    async fn text(order: String) -> String {
        order
    }
    async fn fixed(_order: String) -> &'static str {
        "done"
    }
    async fn bytes(order: Vec<u8>) -> Vec<u8> {
        order
    }
    async fn json(Json(order): Json<u64>) -> Result<Json<Reserved>, OutOfStock> {
        Ok(Json(Reserved { order }))
    }
    async fn some(order: String) -> Option<String> {
        Some(order)
    }
    assert_eq!(replies(text.reply_to("replies"), 1).await, ["42"]);
    assert_eq!(replies(fixed.reply_to("replies"), 1).await, ["done"]);
    assert_eq!(replies(bytes.reply_to("replies"), 1).await, ["42"]);
    assert_eq!(replies(json.reply_to("replies"), 1).await, [r#"{"order":42}"#]);
    assert_eq!(replies(some.reply_to("replies"), 1).await, ["42"]);
}

#[tokio::test]
async fn several_replies_are_published_in_order() {
    async fn pair(order: String) -> (String, Json<u64>) {
        (order, Json(43))
    }
    async fn list(_order: String) -> Vec<Json<u64>> {
        vec![Json(1), Json(2), Json(3)]
    }
    async fn mixed(order: String) -> Result<(String, Option<String>, Envelope), OutOfStock> {
        Ok((order, None, Envelope::new("replies", "addressed")))
    }
    assert_eq!(replies(pair.reply_to("replies"), 2).await, ["42", "43"]);
    assert_eq!(replies(list.reply_to("replies"), 3).await, ["1", "2", "3"]);
    assert_eq!(replies(mixed.reply_to("replies"), 2).await, ["42", "addressed"]);
}

/// A reply with a destination of its own goes there and nowhere else.
#[tokio::test]
async fn an_addressed_reply_goes_where_it_says() {
    async fn reserve(order: String) -> Vec<Envelope> {
        vec![Envelope::new("audit", order.clone()), Envelope::unaddressed(order).with_header("kind", "reply")]
    }
    let test = handled(reserve.reply_to("replies").reply_to("copies")).await;
    assert_eq!(test.next::<String>("audit").await, "42");
    for destination in ["replies", "copies"] {
        assert_eq!(test.next_delivery(destination).await.headers().get("kind"), Some("reply"));
    }
    test.settle().await;
    assert_eq!(test.capture().tree().find_all("publish audit").len(), 1);
}

/// ATTR-C-09: a reply belongs to the conversation of the request.
#[tokio::test]
async fn a_reply_has_the_correlation_id_of_the_request() {
    async fn reserve(order: String) -> (String, Envelope) {
        (order, Envelope::unaddressed("own").with_correlation_id("mine"))
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve.reply_to("replies"))).await;
    test.publisher().publish("orders", "42").correlation_id("cart-7").await.unwrap();
    assert_eq!(test.next_delivery("replies").await.correlation_id(), Some("cart-7"));
    assert_eq!(test.next_delivery("replies").await.correlation_id(), Some("mine"));
}

/// One part of several that failed or decided is what counts, and nothing is published then.
#[tokio::test]
async fn a_failed_part_decides_for_all() {
    async fn reserve(_order: String) -> (String, Result<String, Settlement>) {
        ("published?".to_owned(), Err(Settlement::reject("no")))
    }
    let test = handled(reserve.reply_to("replies")).await;
    let settled = test.broker().settled_within(1, Duration::from_secs(10)).await.unwrap();
    assert_eq!(settled[0].settlement, Settlement::reject("no"));
    assert!(test.capture().tree().find_all("publish replies").is_empty());
}

/// Fails to publish so many times.
struct Down(Arc<AtomicUsize>);

impl Down {
    fn times(times: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(times)))
    }
}

#[async_trait]
impl Middleware for Down {
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(PublishError::new(PublishErrorKind::Disconnected, "disconnected", "no connection")),
            Err(_) => next.run(envelope).await,
        }
    }
}

/// Design, section 5: a reply that cannot be published is published again; the handler has done its work.
#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_published_is_tried_again_alone() {
    async fn reserve(order: String) -> String {
        order
    }
    let test = handled(reserve.reply_to("replies").middleware(Down::times(5))).await;
    assert_eq!(test.next::<String>("replies").await, "42");
    test.settle().await;
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);
    assert!(test.broker().settled().iter().all(|settled| settled.settlement == Settlement::Ack));
}

/// The same for a batch, and its messages stay acknowledged.
#[tokio::test(start_paused = true)]
async fn the_reply_of_a_batch_is_tried_again_alone() {
    async fn reserve(batch: Batch<String>) -> String {
        for message in batch {
            message.run(async |_| ()).await;
        }
        "both".to_owned()
    }
    let orders = Channel::new("orders").batch(2, Duration::from_secs(1));
    let test = start(App::new().subscribe(orders, reserve.reply_to("replies").middleware(Down::times(3)))).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    assert_eq!(test.next::<String>("replies").await, "both");
    test.settle().await;
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);
    assert!(test.broker().settled().iter().all(|settled| settled.settlement == Settlement::Ack));
}

/// A reply that goes to the requester and cannot is the requester's fault: the span of the send has the error, the message is handled.
#[tokio::test(start_paused = true)]
async fn a_requester_that_cannot_be_reached_does_not_hold_up_its_message() {
    async fn reserve(order: String) -> String {
        order
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve)).await;
    let request = Envelope::new("orders", "42").with_reply_to("");
    test.publisher().publish_envelope(request).await.unwrap();
    let settled = test.broker().settled_within(1, Duration::from_secs(10)).await.unwrap();
    assert_eq!(settled[0].settlement, Settlement::Ack);
    test.settle().await;
    let spans = test.capture().spans();
    let failed: Vec<_> = spans.iter().filter(|span| attribute(span, "error.type").is_some()).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].span_kind, SpanKind::Producer);
}

/// A reply that is too large is the service's own fault, whoever asked.
#[tokio::test(start_paused = true)]
async fn a_reply_to_a_requester_that_is_too_large_fails_its_message_for_good() {
    struct TooLarge;

    #[async_trait]
    impl Middleware for TooLarge {
        async fn publish(&self, _envelope: Envelope, _next: NextPublish<'_>) -> Result<Receipt, PublishError> {
            Err(PublishError::new(PublishErrorKind::TooLarge, "too_large", "larger than the broker takes"))
        }
    }

    async fn reserve(order: String) -> String {
        order
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve.middleware(TooLarge))).await;
    test.publisher().publish_envelope(Envelope::new("orders", "42").with_reply_to("answers")).await.unwrap();
    let settled = test.broker().settled_within(1, Duration::from_secs(10)).await.unwrap();
    assert!(matches!(&settled[0].settlement, Settlement::Reject { reason } if reason.contains("too_large")));
}

/// A reply that names no destination is not published, and not taken for one.
#[tokio::test]
async fn a_reply_with_an_empty_destination_is_an_error() {
    async fn reserve(_order: String) -> Envelope {
        Envelope::new("", "42")
    }
    let Settlement::Reject { reason } = settlement(reserve).await else { panic!("not rejected") };
    assert!(reason.contains("invalid_destination"), "{reason}");
}

/// A value that has no JSON is not tried again, and says what is wrong.
#[tokio::test]
async fn a_reply_that_cannot_be_encoded_is_rejected() {
    async fn reserve(_order: String) -> Json<std::collections::HashMap<(u8, u8), u8>> {
        Json([((1, 2), 3)].into())
    }
    assert_eq!(settlement(reserve.reply_to("replies")).await, Settlement::reject("encode_error"));
}

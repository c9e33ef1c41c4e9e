//! The arguments of handlers (design, section 4).

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use throughline_core::extract::{Baggage, Batch, FromDelivery, FromRef, Json, ProcessSpan, Rejection, State};
use throughline_core::{App, CurrentBaggage, CurrentSpan, Delivery, Failure, Headers, Publisher, Settlement};
use throughline_memory::Channel;
use throughline_testing::start;

use crate::support::{Seen, publish_remote};

#[derive(Clone)]
struct Shop {
    stock: Stock,
    seen: Seen<String>,
}

#[derive(Clone)]
struct Stock(&'static str);

impl FromRef<Shop> for Stock {
    fn from_ref(shop: &Shop) -> Self {
        shop.stock.clone()
    }
}

impl FromRef<Shop> for Seen<String> {
    fn from_ref(shop: &Shop) -> Self {
        shop.seen.clone()
    }
}

fn shop() -> (Shop, Seen<String>) {
    let seen = Seen::new();
    (Shop { stock: Stock("north"), seen: seen.clone() }, seen)
}

#[derive(Deserialize)]
struct Order {
    id: u64,
}

#[tokio::test]
async fn a_body_is_json_text_or_bytes() {
    async fn json(Json(order): Json<Order>, State(seen): State<Seen<String>>) {
        seen.push(order.id.to_string());
    }
    async fn text(order: String, State(seen): State<Seen<String>>) {
        seen.push(order);
    }
    async fn bytes(order: Bytes, raw: Vec<u8>, State(seen): State<Seen<String>>) {
        assert_eq!(order, raw);
        seen.push(format!("{} bytes", order.len()));
    }
    let seen = Seen::new();
    let orders = || Channel::new("orders");
    let app = App::new().subscribe(orders(), json).subscribe(orders(), text).subscribe(orders(), bytes);
    let test = start(app.with_state(seen.clone())).await;
    test.publish("orders", r#"{"id":42}"#).await;
    test.settle().await;
    let mut seen = seen.take();
    seen.sort();
    assert_eq!(seen, ["42", "9 bytes", r#"{"id":42}"#]);
}

/// Eight arguments, the body last: the order never matters.
#[tokio::test]
async fn a_handler_may_have_eight_arguments_in_any_order() {
    #[allow(clippy::too_many_arguments)] // that is the point
    async fn handle(
        span: ProcessSpan,
        State(Stock(stock)): State<Stock>,
        headers: Headers,
        publisher: Publisher,
        baggage: Baggage,
        delivery: Delivery,
        State(shop): State<Shop>,
        Json(order): Json<Order>,
    ) {
        assert!(span.span_context().is_valid());
        publisher.publish("done", "1").await.unwrap();
        let tenant = headers.get("tenant").unwrap().to_owned();
        shop.seen.push(format!("{} {tenant} {stock} {:?} {}", order.id, baggage.get("user"), delivery.destination()));
    }
    let (state, seen) = shop();
    let test = start(App::new().subscribe(Channel::new("orders"), handle).with_state(state)).await;
    let order = Baggage::new().with("user", "bob");
    order.scope(test.publisher().publish("orders", r#"{"id":42}"#).header("tenant", "acme")).await.unwrap();
    test.settle().await;
    assert_eq!(seen.one(), "42 acme north Some(\"bob\") orders");
}

#[tokio::test]
async fn a_handler_may_have_no_argument_for_messages_and_for_batches() {
    let seen = Seen::new();
    let handler = {
        let seen = seen.clone();
        move || {
            seen.push(());
            async {}
        }
    };
    let batches = Channel::new("orders").batch(2, Duration::from_secs(5));
    let app: App = App::new().subscribe(Channel::new("orders"), handler.clone()).subscribe(batches, handler);
    let test = start(app).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.take().len(), 3, "twice for messages, once for the batch");
}

/// An extractor that works asynchronously, reads the state, and may want another attempt.
struct Customer(String);

impl FromDelivery<Shop> for Customer {
    async fn from_delivery(delivery: &Delivery, shop: &Shop) -> Result<Self, Rejection> {
        tokio::task::yield_now().await;
        match delivery.headers().get("customer") {
            None => Err(Rejection::malformed("no customer header")),
            Some(_) if delivery.attempt() == 1 => Err(Rejection::new(Failure::new("lookup_failed", "database away"))),
            Some(name) => Ok(Self(format!("{name} of {}", shop.stock.0))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_extractor_of_the_users_own_may_wait_and_may_ask_for_another_attempt() {
    async fn handle(Customer(name): Customer, State(seen): State<Seen<String>>) {
        seen.push(name);
    }
    let (state, seen) = shop();
    let test = start(App::new().subscribe(Channel::new("orders"), handle).with_state(state)).await;
    test.publisher().publish("orders", "1").header("customer", "bob").await.unwrap();
    test.settle().await;
    assert_eq!(seen.one(), "bob of north");
    assert_eq!(test.capture().tree().find_all("process orders").len(), 2);
}

#[tokio::test]
async fn a_rejection_decides_about_the_message_and_the_handler_is_not_called() {
    async fn handle(Customer(name): Customer, State(seen): State<Seen<String>>) {
        seen.push(name);
    }
    let (state, seen) = shop();
    let test = start(App::new().subscribe(Channel::new("orders"), handle).with_state(state)).await;
    test.publish("orders", "1").await;
    let settled = test.broker().settled_within(1, Duration::from_secs(10)).await.unwrap();
    assert_eq!(settled[0].settlement, Settlement::reject("decode_error"));
    assert_eq!(seen.take(), Vec::<String>::new());
}

/// Values that middleware stored reach the handler through the delivery.
#[tokio::test]
async fn what_middleware_stored_can_be_an_argument() {
    use throughline_core::Middleware;
    use throughline_core::middleware::Next;

    struct Tenant(&'static str);
    struct Login;
    #[async_trait::async_trait]
    impl Middleware for Login {
        async fn process(&self, mut delivery: Delivery, next: Next<'_>) -> throughline_core::Outcome {
            delivery.insert_extension(Tenant("acme"));
            next.run(delivery).await
        }
    }
    async fn handle(delivery: Delivery, State(seen): State<Seen<&'static str>>) {
        seen.push(delivery.extension::<Tenant>().expect("the middleware stored it").0);
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders"), handle).middleware(Login).with_state(seen.clone());
    let test = start(app).await;
    test.publish("orders", "1").await;
    test.settle().await;
    assert_eq!(seen.one(), "acme");
}

/// Design, section 4: a handler and its subscription must agree on batches; at start it is said what to change.
#[tokio::test]
async fn a_batch_handler_needs_a_batch_subscription_and_the_other_way_round() {
    use throughline_core::{ServeErrorKind, serve};
    use throughline_memory::Memory;

    async fn single(_order: String) {}
    async fn batch(_orders: Batch<String>) {}
    let refused = async |app: App| {
        let error = serve(Memory::new(), app).start().await.expect_err("it contradicts itself");
        assert_eq!(error.kind(), ServeErrorKind::Configuration);
        error.to_string()
    };
    let text = refused(App::new().subscribe(Channel::new("orders"), batch)).await;
    assert!(text.contains("`orders`") && text.contains(".batch("), "{text}");
    let batches = Channel::new("orders").batch(2, Duration::from_secs(1));
    let text = refused(App::new().subscribe(batches, single)).await;
    assert!(text.contains("`orders`") && text.contains("Batch<T>"), "{text}");
}

/// A delivery as an argument is the message as it came.
#[tokio::test]
async fn the_whole_delivery_is_an_argument() {
    async fn handle(delivery: Delivery, State(seen): State<Seen<String>>) {
        seen.push(format!("{:?} {:?} {}", delivery.key(), delivery.headers().get("baggage"), delivery.attempt()));
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), handle).with_state(seen.clone())).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    test.settle().await;
    assert_eq!(seen.one(), "None Some(\"tenant=acme\") 1");
}

#[tokio::test]
async fn an_argument_that_cannot_be_made_may_be_left_out_or_looked_at() {
    async fn optional(order: Option<Json<Order>>, State(seen): State<Seen<String>>) {
        seen.push(order.map_or("none".to_owned(), |Json(order)| order.id.to_string()));
    }
    async fn looked_at(order: Result<Json<Order>, Rejection>, State(seen): State<Seen<String>>) -> Settlement {
        let Err(rejection) = order else { return Settlement::Ack };
        seen.push(rejection.failure().error_type().to_owned());
        Settlement::reject("unreadable")
    }
    let seen = Seen::new();
    let app: App<Seen<String>> =
        App::new().subscribe(Channel::new("optional"), optional).subscribe(Channel::new("looked-at"), looked_at);
    let test = start(app.with_state(seen.clone())).await;
    test.publish("optional", r#"{"id":7}"#).await;
    test.publish("optional", "not JSON").await;
    test.publish("looked-at", "not JSON").await;
    let settled = test.broker().settled_within(3, Duration::from_secs(60)).await.unwrap();
    let rejected = settled.iter().filter(|message| message.settlement == Settlement::reject("unreadable"));
    assert_eq!(rejected.count(), 1);
    let mut seen = seen.take();
    seen.sort();
    assert_eq!(seen, ["7", "decode_error", "none"]);
}

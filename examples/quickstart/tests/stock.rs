//! One service alone, as a user tests it: on the in-memory broker, with captured telemetry.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use quickstart::handlers::Warehouses;
use quickstart::orders::{OrderPlaced, StockReserved};
use quickstart::{memory, services};
use throughline::App;
use throughline::extract::Json;

fn stock() -> App {
    let tracer = SdkTracerProvider::default().tracer("test");
    services::stock(memory::subscriptions().placed, Warehouses::new(tracer))
}

fn order(item: &str) -> Json<OrderPlaced> {
    Json(OrderPlaced { id: 1, item: item.to_owned(), count: 2 })
}

#[tokio::test]
async fn an_order_reserves_stock() {
    let test = throughline_testing::start(stock()).await;
    test.publish("orders.placed", order("lamp")).await;
    let reserved: Json<StockReserved> = test.next("stock.reserved").await;
    assert_eq!((reserved.0.order, reserved.0.cents), (1, 3_800));
    test.trace().await.assert_tree(
        "
        publish orders.placed
        └─ process orders.placed
           └─ publish stock.reserved
        ",
    );
}

#[tokio::test]
async fn what_no_warehouse_has_lands_in_the_dead_letter() {
    let test = throughline_testing::start(stock()).await;
    test.publish("orders.placed", order("unicorn")).await;
    let dead = test.next_delivery("orders.dead").await;
    assert_eq!(dead.headers().get("dead-letter-origin"), Some("orders.placed"));
    assert_eq!(dead.headers().get("dead-letter-reason"), Some("failed 2 times"));
    test.trace().await.assert_tree(
        "
        publish orders.placed
        └─ process orders.placed
           ├─ retry
           └─ publish orders.dead ~ linked from publish orders.placed
        ",
    );
}

#[tokio::test]
async fn what_is_not_an_order_lands_in_the_dead_letter_at_once() {
    let test = throughline_testing::start(stock()).await;
    test.publish("orders.placed", "not JSON").await;
    let dead = test.next_delivery("orders.dead").await;
    assert_eq!(dead.payload().as_ref(), b"not JSON");
    assert_eq!(dead.headers().get("dead-letter-reason"), Some("decode_error"), "STAT-11");
}

#[cfg(feature = "nats")]
#[tokio::test]
async fn the_app_for_nats_starts_unchanged_on_the_in_memory_broker() {
    let warehouses = Warehouses::new(SdkTracerProvider::default().tracer("test"));
    let test = throughline_testing::start(services::stock(quickstart::nats::subscriptions().placed, warehouses)).await;
    test.publish("orders.placed", order("lamp")).await;
    let reserved: Json<StockReserved> = test.next("stock.reserved").await;
    assert_eq!(reserved.0.order, 1);
}

#[cfg(feature = "rabbit")]
#[tokio::test]
async fn the_app_for_rabbit_starts_unchanged_on_the_in_memory_broker() {
    let warehouses = Warehouses::new(SdkTracerProvider::default().tracer("test"));
    let placed = quickstart::rabbit::subscriptions().placed;
    let test = throughline_testing::start(services::stock(placed, warehouses)).await;
    test.publish("orders.placed", order("lamp")).await;
    let reserved: Json<StockReserved> = test.next("stock.reserved").await;
    assert_eq!(reserved.0.order, 1);
}

//! Whole orders through all three services, on in-memory brokers.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

mod shop;

use orders::storefront::Progress;
use throughline::Settlement;
use throughline_memory::Memory;

use self::shop::{Connections, Shop, baggage, names};

/// The brokers, as the services see them: what was settled is known of each connection.
struct Brokers {
    of: Connections<Memory, Memory, Memory>,
}

impl Brokers {
    fn new() -> Self {
        let [kafka, rabbit, nats] = [Memory::recording(), Memory::recording(), Memory::recording()];
        let storefront = (kafka.connect(), rabbit.connect(), nats.connect());
        Self { of: Connections { storefront, warehouse: (kafka, rabbit.connect()), billing: (rabbit, nats) } }
    }

    async fn open(&self) -> Shop {
        Shop::open(self.of.clone()).await
    }

    /// Waits until nothing is under way, and ends the services.
    async fn close(&self, shop: &mut Shop) {
        for broker in [&self.of.storefront.0, &self.of.storefront.1, &self.of.storefront.2] {
            broker.idle().await;
        }
        shop.close().await;
    }
}

fn ready(cents: u32) -> Progress {
    Progress::Invoiced { cents, warehouse: "north".to_owned() }
}

fn settlements(broker: &Memory, destination: &str) -> Vec<Settlement> {
    let settled = broker.settled();
    let here = settled.iter().filter(|message| message.delivery.destination() == destination);
    here.map(|message| message.settlement.clone()).collect()
}

#[tokio::test]
async fn an_order_is_one_trace_through_all_services_and_its_baggage_changes_on_the_way() {
    let brokers = Brokers::new();
    let mut shop = brokers.open().await;
    assert_eq!(shop.order("acme", r#"{"item": "lamp", "count": 2}"#).await, ready(2_380));
    brokers.close(&mut shop).await;

    let tree = shop.tree();
    tree.assert_tree(
        "
        POST /orders
        ├─ request shop.prices
        │  └─ process shop.prices
        │     └─ publish _INBOX
        └─ publish shop.orders
           └─ process shop.orders
              ├─ GET /credit
              ├─ take off the shelf
              └─ publish shop.reserved
                 └─ publish shop.notices
                    └─ process shop.notices

        process shop.reserved ~ linked from publish shop.reserved
        ",
    );
    assert_eq!(
        names(&shop.storefront),
        ["POST /orders", "process shop.notices", "publish shop.orders", "request shop.prices"]
    );
    assert_eq!(
        names(&shop.warehouse),
        ["process shop.orders", "process shop.prices", "publish _INBOX", "publish shop.reserved", "take off the shelf"]
    );
    assert_eq!(names(&shop.billing), ["GET /credit", "process shop.reserved", "publish shop.notices"]);

    assert_eq!(baggage(tree.find("process shop.prices")), "coupon=spring,tenant=acme");
    assert_eq!(baggage(tree.find("process shop.orders")), "coupon=spring,tenant=acme");
    assert_eq!(baggage(tree.find("process shop.reserved")), "tenant=acme,warehouse=north");
    assert_eq!(baggage(tree.find("process shop.notices")), "");
    assert_eq!(settlements(&brokers.of.warehouse.0, "shop.orders"), [Settlement::Ack]);
    assert_eq!(settlements(&brokers.of.billing.0, "shop.reserved"), [Settlement::Ack]);
    assert_eq!(settlements(&brokers.of.storefront.2, "shop.notices"), [Settlement::Ack]);
}

#[tokio::test]
async fn a_busy_shelf_is_looked_at_again() {
    let brokers = Brokers::new();
    let mut shop = brokers.open().await;
    assert_eq!(shop.order("acme", r#"{"item": "chair", "count": 1}"#).await, ready(1_190));
    brokers.close(&mut shop).await;

    let tree = shop.tree();
    assert_eq!(tree.find_all("process shop.orders").len(), 2);
    let busy = tree.find_all("take off the shelf")[0];
    assert_eq!(busy.events.iter().map(|event| event.name.as_ref()).collect::<Vec<_>>(), ["the shelf is being counted"]);
    assert_eq!(tree.find_all("publish shop.reserved").len(), 1);
    assert!(tree.find_all("publish shop.orders.dead").is_empty());
}

#[tokio::test]
async fn a_dead_letter_goes_back_and_its_order_is_still_one_trace() {
    let brokers = Brokers::new();
    let mut shop = brokers.open().await;
    assert_eq!(shop.order("acme", r#"{"item": "piano", "count": 1}"#).await, ready(1_190));
    brokers.close(&mut shop).await;

    let tree = shop.trace(0);
    assert_eq!(tree.find_all("process shop.orders").len(), 4, "three attempts, and one after the redrive");
    let dead = tree.find("publish shop.orders.dead");
    assert_eq!(tree.parent(dead).unwrap().name, "process shop.orders");
    let sent = tree.find_all("publish shop.orders");
    assert_eq!(sent.len(), 2, "by the customer, and by the redrive");
    assert_eq!(tree.parent(sent[1]).unwrap().name, "process shop.orders.dead");
    assert!(
        tree.find_all("process shop.orders").iter().all(|span| span.parent_span_id == sent[0].span_context.span_id())
    );
    assert_eq!(tree.find_all("process shop.notices").len(), 1);
}

#[tokio::test]
async fn who_gets_no_credit_is_told_after_one_attempt() {
    let brokers = Brokers::new();
    let mut shop = brokers.open().await;
    let end = shop.order("initech", r#"{"item": "lamp", "count": 1}"#).await;
    assert_eq!(end, Progress::Cancelled("no_credit".to_owned()));
    brokers.close(&mut shop).await;

    let tree = shop.trace(0);
    assert_eq!(tree.find_all("process shop.orders").len(), 1);
    assert_eq!(names(&shop.billing), ["GET /credit"]);
    assert_eq!(tree.parent(tree.find("GET /credit")).unwrap().name, "process shop.orders");
    assert!(tree.find_all("take off the shelf").is_empty());
    assert_eq!(settlements(&brokers.of.storefront.0, "shop.orders.dead"), [Settlement::Ack]);
}

#[tokio::test]
async fn a_request_that_fails_is_the_answer_for_the_customer_and_nothing_is_ordered() {
    let brokers = Brokers::new();
    let mut shop = brokers.open().await;
    let answer = shop.place("acme", r#"{"item": "unicorn", "count": 1}"#).await;
    assert_eq!(answer, (404, "no such item".to_owned()));
    assert_eq!(shop.place("acme", "a lamp, please").await.0, 400);
    brokers.close(&mut shop).await;

    let tree = shop.tree();
    assert!(tree.find_all("publish shop.orders").is_empty());
    assert_eq!(tree.find_all("request shop.prices").len(), 1);
    assert_eq!(tree.parent(tree.find("process shop.prices")).unwrap().name, "request shop.prices");
}

#[tokio::test]
async fn probes_say_whether_the_service_is_ready_also_after_its_end() {
    let brokers = Brokers::new();
    let mut shop = brokers.open().await;
    let probes = shop.probes().await;
    assert_eq!(probes.get("/livez").await.0, 200);
    let (status, text) = probes.get("/readyz").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("subscription shop.orders.dead (storefront): ready"), "{text}");
    brokers.close(&mut shop).await;
    assert_eq!(probes.get("/readyz").await.0, 503);
    assert_eq!(probes.get("/livez").await.0, 200);
}

//! The services as processes, with all telemetry through a Collector into Zipkin.

use orders::demo::customer::{Answer, Customer, Purchase};

use crate::api::{PATIENCE, until};
use crate::brokers::alone;
use crate::collector::Collector;
use crate::services::{Folder, start};
use crate::zipkin::{Zipkin, picture};

/// An order that goes smoothly: of each span its service, its name and the baggage that it started with. A publish has that of its handler, whatever
/// leaves with the message.
const LAMPS: &str = "
storefront post /orders []
  storefront request shop.prices [coupon=spring,tenant=acme]
    warehouse process shop.prices [coupon=spring,tenant=acme]
      warehouse publish amq.rabbitmq.reply-to [coupon=spring,tenant=acme]
  storefront send shop.orders [coupon=spring,tenant=acme]
    warehouse process shop.orders [coupon=spring,tenant=acme]
      billing get /credit [coupon=spring,tenant=acme]
      warehouse take off the shelf [coupon=spring,tenant=acme]
      warehouse publish shop.reserved [coupon=spring,tenant=acme]
        billing publish shop.notices [tenant=acme,warehouse=north]
          storefront process shop.notices []
";

/// Orders, waits for the end, and returns the number.
async fn order(customer: &Customer, tenant: &'static str, item: &'static str, count: u32, end: &str) -> u64 {
    let answer = customer.order(Purchase { tenant, item, count }, PATIENCE).await.unwrap();
    let Answer::Taken(order) = answer else { panic!("no {item}") };
    assert_eq!(customer.end(order, PATIENCE).await.unwrap(), end);
    order
}

#[tokio::test]
#[ignore = "needs all brokers, a Collector and Zipkin: cargo xtask test"]
async fn an_order_is_one_trace_of_three_processes_in_zipkin() {
    let _alone = alone().await;
    let zipkin = Zipkin::start().await;
    let collector = Collector::start(zipkin.address()).await;
    let logs = Folder::new();
    let services = start(&logs, &collector.endpoint()).await;
    let customer = Customer::new(&services.url());

    let lamps = order(&customer, "acme", "lamp", 2, "invoiced: 4522 cents, ready at north").await;
    let piano = order(&customer, "acme", "piano", 1, "invoiced: 583100 cents, ready at north").await;
    order(&customer, "initech", "lamp", 1, "cancelled: no_credit").await;
    services.stop().await.unwrap_or_else(|error| panic!("{error}"));

    let trace = zipkin.trace("order", &lamps.to_string(), LAMPS.lines().count() - 1).await;
    assert_eq!(picture(&trace), LAMPS);
    let reserved = trace.iter().find(|span| span.name == "publish shop.reserved").unwrap();
    let batch = until("the batch that invoiced the lamps is there", async || {
        let batches = zipkin.spans("billing", "process shop.reserved").await;
        batches.into_iter().find(|batch| batch.links_to(reserved))
    })
    .await;
    assert_ne!(batch.trace, reserved.trace);
    assert_eq!(batch.baggage(), "tenant=acme,warehouse=north");

    // Three attempts, the dead letter, the redrive, and one more attempt.
    let trace = zipkin.trace("order", &piano.to_string(), 20).await;
    let count = |name: &str| trace.iter().filter(|span| span.name == name).count();
    assert_eq!(count("process shop.orders"), 4, "{}", picture(&trace));
    assert_eq!(count("send shop.orders.dead"), 1, "{}", picture(&trace));
    assert_eq!(count("send shop.orders"), 2, "{}", picture(&trace));
    assert_eq!(count("process shop.notices"), 1, "{}", picture(&trace));
}

//! The three services in this process: every span of theirs is looked at.

use orders::storefront::Progress;

use crate::brokers::{alone, kafka, nats, rabbit};
use crate::shop::{Connections, Shop, baggage};

#[tokio::test]
#[ignore = "needs all brokers: cargo xtask test"]
async fn an_order_is_one_trace_through_three_services() {
    let _alone = alone().await;
    let mut shop = Shop::open(Connections {
        storefront: (kafka().await, rabbit().await, nats().await),
        warehouse: (kafka().await, rabbit().await),
        billing: (rabbit().await, nats().await.publish_to_streams()),
    })
    .await;
    let end = shop.order("acme", r#"{"item": "lamp", "count": 2}"#).await;
    let redriven = shop.order("acme", r#"{"item": "piano", "count": 1}"#).await;
    shop.close().await;

    assert_eq!(end, Progress::Invoiced { cents: 2_380, warehouse: "north".to_owned() });
    let trace = shop.trace(0);
    trace.assert_tree(
        "
        POST /orders
        ├─ request shop.prices
        │  └─ process shop.prices
        │     └─ publish amq.rabbitmq.reply-to
        └─ send shop.orders
           └─ process shop.orders
              ├─ GET /credit
              ├─ take off the shelf
              └─ publish shop.reserved
                 └─ publish shop.notices
                    └─ process shop.notices
        ",
    );
    let all = shop.tree();
    let reserved = trace.find("publish shop.reserved").span_context.span_id();
    let invoiced = all.find_all("process shop.reserved");
    let batch = invoiced.iter().find(|batch| batch.links.iter().any(|link| link.span_context.span_id() == reserved));
    let batch = batch.unwrap_or_else(|| panic!("no batch links to the reservation:\n{all}"));
    for (capture, name) in [(&shop.warehouse, "process shop.orders"), (&shop.billing, "process shop.reserved")] {
        assert!(capture.spans().iter().any(|span| span.name == name), "{name}");
    }

    assert_eq!(baggage(trace.find("process shop.prices")), "coupon=spring,tenant=acme");
    assert_eq!(baggage(trace.find("process shop.orders")), "coupon=spring,tenant=acme");
    assert_eq!(baggage(batch), "tenant=acme,warehouse=north");
    assert_eq!(baggage(trace.find("process shop.notices")), "");

    assert_eq!(redriven, Progress::Invoiced { cents: 1_190, warehouse: "north".to_owned() });
    let trace = shop.trace(1);
    let sent = trace.find_all("send shop.orders");
    assert_eq!(sent.len(), 2, "by the customer, and by the redrive:\n{trace}");
    assert_eq!(trace.parent(sent[1]).unwrap().name, "process shop.orders.dead");
    let processed = trace.find_all("process shop.orders");
    assert_eq!(processed.len(), 4, "three attempts, and one after the redrive:\n{trace}");
    assert!(processed.iter().all(|span| span.parent_span_id == sent[0].span_context.span_id()), "{trace}");
}

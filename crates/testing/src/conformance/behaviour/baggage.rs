use std::collections::BTreeMap;

use throughline_core::extract::Baggage;
use throughline_core::{App, CurrentBaggage, Delivery, Envelope, Publisher};

use crate::conformance::Harness;
use crate::conformance::bench::{Bench, body_of, delivered, stopped};

pub async fn what_a_handler_does_to_the_baggage_is_what_it_publishes<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let mut next = bench.read("next").await;
    let target = bench.name("next");
    let handle = handler!([target] |delivery: Delivery, baggage: Baggage, publisher: Publisher| {
        let change = body_of(&delivery);
        match change.as_str() {
            "set" => {
                baggage.set("warehouse", "north");
                baggage.set("tenant", "zeta");
            }
            "remove" => baggage.remove("tenant"),
            "clear" => baggage.clear(),
            "clear and set" => {
                baggage.clear();
                baggage.set("warehouse", "north");
            }
            "spawn" => return spawned(baggage, publisher, target).await,
            _ => {}
        }
        delivered(publisher.publish(target, change).await);
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.plain_publisher().await;
    for (change, expected) in [
        ("keep", &[("shop", "1"), ("tenant", "acme")][..]),
        ("set", &[("shop", "1"), ("tenant", "zeta"), ("warehouse", "north")]),
        ("remove", &[("shop", "1")]),
        ("clear", &[]),
        ("clear and set", &[("warehouse", "north")]),
        ("spawn", &[("shop", "1"), ("task", "yes"), ("tenant", "acme")]),
    ] {
        let envelope = Envelope::new(&spec.destination, change).with_header("baggage", "tenant=acme,shop=1");
        delivered(publisher.publish_envelope(envelope).await);
        let carried = next.next().await;
        let found = Baggage::from_headers(carried.headers()).get_all();
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!((body_of(&carried).as_str(), found), (change, expected), "BAGG-11");
        assert_eq!(carried.headers().get_all("baggage").count(), usize::from(change != "clear"), "PROP-04");
    }
    stopped(running).await;
    next.close().await;
    bench.stop().await;
}

/// Changes the baggage in a task of its own, and publishes from there.
// TRAP-02.
async fn spawned(baggage: Baggage, publisher: Publisher, target: String) {
    let task = tokio::spawn(async move {
        baggage.set("task", "yes");
        delivered(publisher.publish(target, "spawn").await);
    });
    assert!(task.await.is_ok(), "the task panicked");
}

pub async fn a_publish_from_a_spawned_task_stays_in_the_trace<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let mut next = bench.read("next").await;
    let target = bench.name("next");
    let handle = handler!([target] |_delivery: Delivery, baggage: Baggage, publisher: Publisher| {
        spawned(baggage, publisher, target).await;
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    delivered(bench.publisher().await.publish(&spec.destination, "order").await);
    next.next().await;
    stopped(running).await;
    let tree = bench.capture.tree();
    assert_eq!((tree.traces().len(), tree.roots().len()), (1, 1), "\n{tree}");
    next.close().await;
    bench.stop().await;
}

pub async fn a_producer_outside_any_handler_can_start_baggage<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let mut reader = bench.read("orders").await;
    let publisher = bench.publisher().await;
    let publish = publisher.publish(bench.name("orders"), "order");
    delivered(Baggage::new().with("tenant", "acme, ü=1").scope(publish).await);
    let carried = Baggage::from_headers(reader.next().await.headers());
    assert_eq!(carried.get("tenant").as_deref(), Some("acme, ü=1"), "BAGG-02, BAGG-03");
    reader.close().await;
    bench.stop().await;
}

use std::time::Duration;

use throughline_core::broker::BatchPolicy;
use throughline_core::extract::Batch;
use throughline_core::{App, CurrentBaggage, Envelope, Publisher, Settlement};

use super::{Note, bodies, collecting, left_out, sorted};
use crate::conformance::bench::{Bench, body_of, delivered, publish, stopped};
use crate::conformance::wait::Seen;
use crate::conformance::{GoldenError, Harness};

const LONG: Duration = Duration::from_secs(60);

pub async fn a_batch_is_handed_over_when_it_is_full<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_batch(BatchPolicy::new(3, LONG));
    let seen = Seen::new();
    let handle = handler!([seen] |batch: Batch<String>| {
        seen.add(batch.iter().map(|message| message.body().clone()).collect::<Vec<_>>());
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.publisher().await;
    for body in ["a", "b", "c", "d", "e", "f"] {
        publish(&publisher, &spec.destination, body).await;
    }
    assert_eq!(seen.count(2).await, [["a", "b", "c"], ["d", "e", "f"]]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn a_batch_is_handed_over_when_its_time_is_up<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_batch(BatchPolicy::new(1000, Duration::from_millis(300)));
    let seen = Seen::new();
    let handle = handler!([seen] |batch: Batch<String>| {
        batch.iter().for_each(|message| seen.add((message.body().clone(), 1)));
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.publisher().await;
    publish(&publisher, &spec.destination, "a").await;
    publish(&publisher, &spec.destination, "b").await;
    assert_eq!(bodies(&seen.count(2).await), ["a", "b"]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn a_batch_under_collection_at_shutdown_is_not_lost<H: Harness>() {
    if !H::CAPABILITIES.fan_out {
        return left_out("fan_out");
    }
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_group(bench.group("g"));
    let batched = spec.clone().with_batch(BatchPolicy::new(1000, LONG));
    let publisher = bench.publisher().await;
    let mut arrived = bench.read("orders").await;
    let seen = Seen::new();
    let handle = handler!([seen] |batch: Batch<String>| {
        batch.iter().for_each(|message| seen.add((message.body().clone(), 1)));
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&batched), handle)).await;
    for body in ["a", "b", "c"] {
        publish(&publisher, &spec.destination, body).await;
        arrived.next().await;
    }
    stopped(running).await;
    arrived.close().await;
    // Handled as a smaller batch, or given back and handled by the next app: each exactly once.
    let running = bench.serve(collecting(bench.harness.subscription(&spec), &seen)).await;
    assert_eq!(sorted(&seen.count(3).await), ["a", "b", "c"]);
    publish(&publisher, &spec.destination, "marker").await;
    let notes = seen.until("the marker", |notes| bodies(notes).contains(&"marker")).await;
    assert_eq!(sorted(&notes), ["a", "b", "c", "marker"]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn each_message_of_a_batch_has_its_own_outcome<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_batch(BatchPolicy::new(4, Duration::from_millis(300)));
    let seen = Seen::new();
    let handle = handler!([seen] |batch: Batch<String>| {
        for message in batch {
            let note: Note = (message.body().clone(), message.delivery().attempt());
            seen.add(note.clone());
            match (note.0.as_str(), note.1) {
                ("rejected", _) => message.settle(Settlement::reject("bad")),
                ("retried", 1) => message.settle(Settlement::retry_after(Duration::from_millis(1))),
                ("failed", 1) => message.settle(Err::<(), _>(GoldenError)),
                _ => message.settle(()),
            }
        }
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.publisher().await;
    for body in ["fine", "rejected", "retried", "failed"] {
        publish(&publisher, &spec.destination, body).await;
    }
    seen.count(6).await;
    publish(&publisher, &spec.destination, "marker").await;
    let notes = seen.until("the marker", |notes| bodies(notes).contains(&"marker")).await;
    assert_eq!(sorted(&notes), ["failed", "failed", "fine", "marker", "rejected", "retried", "retried"]);
    let again: Vec<_> = notes.iter().filter(|(_, attempt)| *attempt == 2).cloned().collect();
    assert_eq!(sorted(&again), ["failed", "retried"]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn the_baggage_of_a_batch_is_merged_and_its_conflicts_are_named<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_batch(BatchPolicy::new(2, LONG));
    let mut next = bench.read("next").await;
    let target = bench.name("next");
    let seen = Seen::new();
    let handle = handler!([seen, target] |batch: Batch<String>, baggage: throughline_core::extract::Baggage, publisher: Publisher| {
        seen.add((batch.len(), baggage.get_all(), baggage.get_all_batch(), baggage.conflicts()));
        publisher.publish(target, "next").await.map(drop)
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.plain_publisher().await;
    for (body, baggage) in [("a", "tenant=acme,shop=1"), ("b", "tenant=zeta,region=eu")] {
        let envelope = Envelope::new(&spec.destination, body).with_header("baggage", baggage);
        delivered(publisher.publish_envelope(envelope).await);
    }

    let (size, merged, each, conflicts) = seen.count(1).await.remove(0);

    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(size, 2);
    let all = [entry("region", "eu"), entry("shop", "1"), entry("tenant", "zeta")];
    assert_eq!(merged, all.clone().into(), "BAGG-12");
    let own =
        [[entry("shop", "1"), entry("tenant", "acme")].into(), [entry("region", "eu"), entry("tenant", "zeta")].into()];
    assert_eq!((each, conflicts), (own.to_vec(), vec!["tenant".to_owned()]), "BAGG-12");
    let carried = next.next().await;
    assert_eq!(body_of(&carried), "next");
    let carried = throughline_core::extract::Baggage::from_headers(carried.headers());
    assert_eq!(carried.get_all(), all.into(), "BAGG-12");
    stopped(running).await;
    next.close().await;
    bench.stop().await;
}

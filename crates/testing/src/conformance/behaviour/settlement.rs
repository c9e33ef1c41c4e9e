use std::time::Duration;

use throughline_core::{App, Delivery, Handler, Settlement};
use tokio::time::Instant;

use super::{bodies, collecting, left_out, note};
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, publish, stopped};
use crate::conformance::wait::Seen;

pub async fn an_acknowledged_message_is_not_delivered_again<H: Harness>() {
    if !H::CAPABILITIES.durable {
        return left_out("durable");
    }
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_group(bench.group("g"));
    let publisher = bench.publisher().await;
    let seen = Seen::new();
    for body in ["order", "marker"] {
        let running = bench.serve(collecting(bench.harness.subscription(&spec), &seen)).await;
        publish(&publisher, &spec.destination, body).await;
        seen.until(body, |notes| notes.iter().any(|(seen, _)| seen == body)).await;
        stopped(running).await;
    }
    assert_eq!(seen.all(), [("order".to_owned(), 1), ("marker".to_owned(), 1)]);
    bench.stop().await;
}

pub async fn what_comes_while_nobody_is_there_waits_for_the_group<H: Harness>() {
    if !H::CAPABILITIES.durable || !H::CAPABILITIES.persistence {
        return left_out("durable or persistence");
    }
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_group(bench.group("g"));
    let seen = Seen::new();
    stopped(bench.serve(collecting(bench.harness.subscription(&spec), &seen)).await).await;
    publish(&bench.publisher().await, &spec.destination, "order").await;
    let running = bench.serve(collecting(bench.harness.subscription(&spec), &seen)).await;
    assert_eq!(bodies(&seen.count(1).await), ["order"]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn a_message_comes_back_after_the_delay_the_handler_asked_for<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| {
        seen.add((delivery.attempt(), Instant::now()));
        if delivery.attempt() == 1 { Settlement::retry_after(Duration::from_millis(300)) } else { Settlement::Ack }
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    publish(&bench.publisher().await, &spec.destination, "order").await;

    let deliveries = seen.count(2).await;

    let [(1, first), (2, second)] = deliveries[..] else { panic!("the deliveries were {deliveries:?}") };
    let waited = second - first;
    assert!(waited >= Duration::from_millis(290), "it came back after {waited:?}");
    stopped(running).await;
    bench.stop().await;
}

pub async fn a_rejected_message_is_not_delivered_again<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_group(bench.group("g"));
    let publisher = bench.publisher().await;
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| {
        seen.add(note(&delivery));
        if delivery.payload().as_ref() == b"bad" { Settlement::reject("bad") } else { Settlement::Ack }
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    publish(&publisher, &spec.destination, "bad").await;
    publish(&publisher, &spec.destination, "marker").await;
    seen.count(2).await;
    stopped(running).await;
    let mut expected = vec!["bad", "marker"];
    if H::CAPABILITIES.durable {
        let running = bench.serve(collecting(bench.harness.subscription(&spec), &seen)).await;
        publish(&publisher, &spec.destination, "second marker").await;
        seen.until("the second marker", |notes| bodies(notes).contains(&"second marker")).await;
        stopped(running).await;
        expected.push("second marker");
    }
    assert_eq!(bodies(&seen.all()), expected);
    bench.stop().await;
}

pub async fn a_message_is_not_delivered_again_while_its_handler_runs<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let Some(wait) = bench.harness.redelivery_wait() else { return left_out("a wait after which it delivers again") };
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| {
        let seen = seen.clone();
        // The work of this handler takes longer than the broker waits for it.
        tokio::time::sleep(wait.mul_f64(2.2)).await;
        seen.add(note(&delivery));
    });
    let route = Handler::<(Delivery,), ()>::concurrency(handle, 4);
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), route)).await;
    publish(&bench.publisher().await, &spec.destination, "order").await;
    seen.count(1).await;
    // What was delivered meanwhile would be handled before the app is down.
    stopped(running).await;
    assert_eq!(seen.all(), [("order".to_owned(), 1)]);
    bench.stop().await;
}

pub async fn a_message_whose_reply_is_refused_is_not_lost<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let Some(refusal) = bench.harness.refusal().filter(|refusal| refusal.destination.is_none()) else {
        return left_out("a body that is refused");
    };
    let spec = bench.spec("orders");
    let mut dead = bench.read("last").await;
    let seen = Seen::new();
    let size = refusal.body;
    let handle = handler!([seen] |delivery: Delivery| {
        seen.add(note(&delivery));
        vec![b'x'; size]
    });
    let route = Handler::<(Delivery,), ()>::reply_to(handle, bench.name("next")).dead_letter(bench.name("last"));
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), route)).await;
    publish(&bench.publisher().await, &spec.destination, "order").await;
    assert_eq!(dead.next().await.payload().as_ref(), b"order");
    stopped(running).await;
    assert_eq!(seen.all(), [("order".to_owned(), 1)], "no attempt makes the reply smaller");
    dead.close().await;
    bench.stop().await;
}

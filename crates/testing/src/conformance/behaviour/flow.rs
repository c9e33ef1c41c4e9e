use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use throughline_core::{App, Delivery, Handler};

use super::{collecting, left_out, note, sorted};
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, publish, publish_with_key, stopped};
use crate::conformance::wait::{Gate, Seen};

pub async fn messages_are_handled_in_their_order<H: Harness>() {
    if !H::CAPABILITIES.ordering {
        return left_out("ordering");
    }
    const MANY: usize = 200;
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let running = bench.serve(collecting(bench.harness.subscription(&spec), &seen)).await;
    let publisher = bench.publisher().await;
    for number in 0..MANY {
        publish(&publisher, &spec.destination, number.to_string()).await;
    }
    let expected: Vec<_> = (0..MANY).map(|number| (number.to_string(), 1)).collect();
    assert_eq!(seen.count(MANY).await, expected);
    stopped(running).await;
    bench.stop().await;
}

pub async fn no_more_handlers_run_than_the_concurrency_allows<H: Harness>() {
    const MOST: usize = 3;
    const MANY: usize = 12;
    let bench = Bench::<H>::start().await;
    let spec = bench.spec(H::DIVIDED);
    let (running_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begun, ended, gate) = (Seen::new(), Seen::new(), Gate::closed());
    let handle = handler!([running_now, most, begun, ended, gate] |delivery: Delivery| {
        let now = running_now.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        begun.add(());
        gate.pass().await;
        running_now.fetch_sub(1, Ordering::SeqCst);
        ended.add(note(&delivery));
    });
    let route = Handler::<(Delivery,), ()>::concurrency(handle, MOST);
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), route)).await;
    let publisher = bench.publisher().await;
    for number in 0..MANY {
        publish_with_key(&publisher, &spec.destination, format!("{number:02}")).await;
    }
    begun.count(MOST).await;
    gate.open();
    let notes = ended.count(MANY).await;
    assert_eq!(sorted(&notes), (0..MANY).map(|number| format!("{number:02}")).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::SeqCst), MOST);
    stopped(running).await;
    bench.stop().await;
}

use std::future::ready;
use std::time::Duration;

use opentelemetry::trace::Status;
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, ServeErrorKind, serve};

use super::{bodies, collecting, left_out, note};
use crate::attribute;
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, publish, started, stopped};
use crate::conformance::wait::{Gate, Seen, soon};

/// Tells an app to stop, does something as soon as it knows, and waits until it has stopped.
async fn stop_and(running: Running, then: impl FnOnce()) {
    // In one task and in this order: the app is told before its first wait.
    let stopping = async { tokio::join!(running.run_until(ready(())), async { then() }) };
    if let (Err(error), ()) = soon("the app to stop", stopping).await {
        panic!("the app did not stop as it should: {error}");
    }
}

pub async fn a_shutdown_waits_for_running_handlers_and_gives_the_rest_back<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_group(bench.group("g"));
    let publisher = bench.plain_publisher().await;
    let (begun, done, gate) = (Seen::new(), Seen::new(), Gate::closed());
    let handle = handler!([begun, done, gate] |delivery: Delivery| {
        begun.add(());
        gate.pass().await;
        done.add(note(&delivery));
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let mut arrived = if H::CAPABILITIES.fan_out { Some(bench.read("orders").await) } else { None };
    for body in ["a", "b", "c", "d", "e"] {
        publish(&publisher, &spec.destination, body).await;
        if let Some(reader) = &mut arrived {
            reader.next().await;
        }
    }
    begun.count(1).await;
    stop_and(running, || gate.open()).await;

    // Where nothing can be given back, what has arrived is handled too.
    let handled = if H::CAPABILITIES.durable { &["a"][..] } else { &["a", "b", "c", "d", "e"] };
    assert_eq!(bodies(&done.all()), handled);
    let spans = bench.capture.spans();
    assert_eq!(spans.len(), handled.len(), "SPAN-29: what was held ready and not handled has no span");
    assert!(spans.iter().all(|span| span.status == Status::Unset));
    if H::CAPABILITIES.durable {
        let rest = Seen::new();
        let running = bench.serve(collecting(bench.harness.subscription(&spec), &rest)).await;
        // At least once: a broker may deliver one twice that was given back while it was being asked for.
        let all = ["b", "c", "d", "e"];
        let notes =
            rest.until("what was given back", |notes| all.iter().all(|body| bodies(notes).contains(body))).await;
        assert!(!bodies(&notes).contains(&"a"), "what was handled is settled");
        stopped(running).await;
    }
    bench.stop().await;
}

pub async fn a_handler_that_outlasts_the_shutdown_timeout_is_dropped_and_its_span_says_cancelled<H: Harness>() {
    for concurrency in [1, 2] {
        let bench = Bench::<H>::start().await;
        let spec = bench.spec("orders").with_group(bench.group("g"));
        let begun = Seen::new();
        let handle = handler!([begun] |_delivery: Delivery| {
            begun.add(());
            std::future::pending::<()>().await;
        });
        let route = throughline_core::Handler::<(Delivery,), ()>::concurrency(handle, concurrency);
        let app = App::new().subscribe(bench.harness.subscription(&spec), route);
        // A broker needs some of it to be told of the end.
        let running = started(bench.prepare(app).await.shutdown_timeout(Duration::from_secs(2))).await;
        publish(&bench.plain_publisher().await, &spec.destination, "order").await;
        begun.count(1).await;
        stop_and(running, || {}).await;

        let spans = bench.capture.spans();
        let [process] = &spans[..] else { panic!("there are {} spans, not one", spans.len()) };
        assert_eq!(attribute(process, "error.type"), Some(&"cancelled".into()), "STAT-09");
        assert!(matches!(process.status, Status::Error { .. }), "STAT-09");
        if H::CAPABILITIES.durable && H::CAPABILITIES.redelivery {
            let again = Seen::new();
            let running = bench.serve(collecting(bench.harness.subscription(&spec), &again)).await;
            let notes = again.count(1).await;
            assert_eq!(bodies(&notes), ["order"], "it was never settled");
            stopped(running).await;
        }
        bench.stop().await;
    }
}

pub async fn a_subscription_that_ends_by_itself_is_an_error_of_serve<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let broker = bench.connect().await;
    let app = App::new().subscribe(bench.harness.subscription(&bench.spec("orders")), async |_: Delivery| {});
    let running = started(serve(broker.clone(), app.telemetry(bench.engine()))).await;
    if !bench.harness.end_subscriptions(&broker).await {
        return left_out("a way to end a subscription");
    }
    let Err(error) = soon("the error", running.run_until(std::future::pending())).await else {
        panic!("the app ended as if it had been told to");
    };
    assert_eq!(error.kind(), ServeErrorKind::Ended, "{error}");
    bench.stop().await;
}

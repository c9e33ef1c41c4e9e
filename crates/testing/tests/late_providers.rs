//! The global providers are those of the process, so this is a program of its own: everything is made, and used, before they are set.
#![allow(clippy::unwrap_used)] // a test fails by it

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::global;
use throughline_core::message::{Operations, Source, System};
use throughline_core::telemetry::{Consumer, Incoming, Instrumentation};
use throughline_core::{App, Handler, Headers, Publisher, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::Capture;
use tokio::sync::{Notify, Semaphore};

/// How a program gets at telemetry without naming a provider.
struct Made {
    publishers: Vec<(&'static str, Publisher)>,
    consumers: Vec<Consumer>,
}

impl Made {
    fn new(memory: &Memory) -> Self {
        let publisher = memory.publisher();
        let source =
            || Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))).with_destination("raw"));
        let built = Instrumentation::builder().capture_headers(["tenant"]).build();
        let consumers = vec![Instrumentation::from_globals().consumer(source()), built.consumer(source())];
        let publishers = vec![
            ("a", publisher.telemetry(Instrumentation::from_globals())),
            ("b", publisher.telemetry(built)),
            ("c", publisher),
        ];
        Self { publishers, consumers }
    }

    async fn use_all(&self) {
        for (destination, publisher) in &self.publishers {
            publisher.publish(*destination, "x").await.unwrap();
        }
        for consumer in &self.consumers {
            consumer.process(&Incoming::new("raw", &Headers::new())).run(async {}).await;
        }
    }
}

#[tokio::test]
async fn what_is_made_before_the_providers_are_set_records_once_they_are() {
    let memory = Memory::new();
    let made = Made::new(&memory);
    let (begun, let_go) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (begins, gate) = (Arc::clone(&begun), Arc::clone(&let_go));
    let handle = move |_body: String| {
        let (begins, gate) = (Arc::clone(&begins), Arc::clone(&gate));
        async move {
            begins.notify_one();
            gate.acquire().await.unwrap().forget();
        }
    };
    let app = App::new().subscribe(Channel::new("orders"), handle.concurrency(2));
    let running = serve(memory.clone(), app).start().await.unwrap();
    made.use_all().await;
    memory.publisher().publish("orders", "before").await.unwrap();
    begun.notified().await;

    // While a handler runs.
    let capture = Capture::new();
    global::set_tracer_provider(capture.tracer_provider());
    global::set_meter_provider(capture.meter_provider());
    made.use_all().await;
    memory.publisher().publish("orders", "after").await.unwrap();
    begun.notified().await;
    let_go.add_permits(2);
    memory.idle().await;
    running.shutdown().await.unwrap();

    capture.wait_for_spans(7, Duration::from_secs(10)).await;
    let tree = capture.tree();
    let mut names: Vec<_> = capture.spans().iter().map(|span| span.name.to_string()).collect();
    names.sort_unstable();
    let expected =
        ["process orders", "process raw", "process raw", "publish a", "publish b", "publish c", "publish orders"];
    assert_eq!(names, expected);
    assert_eq!(tree.parent(tree.find("process orders")).map(|span| span.name.as_ref()), Some("publish orders"));

    let metrics = capture.metrics();
    let count = |name: &str| metrics.iter().filter(|point| point.name == name).map(|point| point.count).sum::<u64>();
    assert_eq!(count("messaging.process.duration"), 3, "that of the message before was not timed from its start");
    assert_eq!(count("messaging.client.operation.duration"), 5, "of four sends and the settlement");
    let sum = |name: &str| metrics.iter().filter(|point| point.name == name).map(|point| point.sum).sum::<f64>();
    assert!((sum("messaging.client.sent.messages") - 4.0).abs() < 0.5);
    assert!(sum(IN_FLIGHT).abs() < 0.5, "what was not counted in is not counted out");
}

/// How many deliveries are being handled.
const IN_FLIGHT: &str = "throughline.process.in_flight";

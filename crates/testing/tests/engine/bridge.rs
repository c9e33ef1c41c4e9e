//! `tracing` spans and logs inside a handler (TRAP-19).

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use throughline_core::{App, PublishError, Publisher};
use throughline_memory::Channel;
use throughline_testing::{Capture, CapturedLog, start};
use tracing::{Instrument, Subscriber, info, info_span};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::ids;

/// What a service installs: spans and logs of `tracing` go to the same providers as those of the framework.
fn subscriber(capture: &Capture) -> impl Subscriber + Send + Sync {
    let tracer = capture.tracer_provider().tracer("service");
    tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(tracer))
        .with(OpenTelemetryTracingBridge::new(&capture.logger_provider()))
}

#[track_caller]
fn log(capture: &Capture, body: &'static str) -> CapturedLog {
    let logs = capture.logs();
    let found = logs.iter().find(|log| log.body == Some(AnyValue::from(body)));
    found.unwrap_or_else(|| panic!("nobody logged {body:?}: {logs:?}")).clone()
}

fn place(log: &CapturedLog) -> (String, String) {
    (log.trace_id.unwrap().to_string(), log.span_id.unwrap().to_string())
}

async fn pack(order: String, publisher: Publisher) -> Result<(), PublishError> {
    info!("reserving");
    let packing = async {
        info!("packing");
        publisher.publish("stock.packed", order).await
    };
    packing.instrument(info_span!("pack")).await.map(drop)
}

/// TRAP-19: the inner span is a child of the process span, and what is published in it is its child.
#[tokio::test]
async fn a_tracing_span_in_a_handler_stands_between_the_process_span_and_the_publish() {
    let test = start(App::new().subscribe(Channel::new("orders"), pack)).await;
    let _guard = tracing::subscriber::set_default(subscriber(test.capture()));
    test.publish("orders", "42").await;
    test.trace().await.assert_tree(
        "
        publish orders
        └─ process orders
           └─ pack
              └─ publish stock.packed
        ",
    );
}

/// TRAP-19, STAT-17: a log has the ids of the span it was written in.
#[tokio::test]
async fn a_log_in_a_handler_belongs_to_the_process_span_or_to_the_inner_span() {
    let test = start(App::new().subscribe(Channel::new("orders"), pack)).await;
    let _guard = tracing::subscriber::set_default(subscriber(test.capture()));
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    assert_eq!(place(&log(test.capture(), "reserving")), ids(tree.find("process orders")));
    assert_eq!(place(&log(test.capture(), "packing")), ids(tree.find("pack")));
}

/// TRAP-19: the same in a batch, where work on one message belongs to that message's own trace.
#[tokio::test]
async fn a_tracing_span_around_the_work_on_one_message_of_a_batch_is_in_that_messages_trace() {
    use std::time::Duration;
    use throughline_core::extract::Batch;

    async fn pack_all(batch: Batch<String>) {
        for message in batch {
            message.run(async |_| info_span!("pack").in_scope(|| info!("packing"))).await;
        }
    }
    let orders = Channel::new("orders").batch(2, Duration::from_secs(5));
    let test = start(App::new().subscribe(orders, pack_all)).await;
    let _guard = tracing::subscriber::set_default(subscriber(test.capture()));
    test.publish("orders", "1").await;
    test.publish("orders", "2").await;
    test.trace().await.assert_tree(
        "
        publish orders
        └─ pack

        publish orders
        └─ pack

        process orders ~ linked from publish orders, publish orders
        ",
    );
}

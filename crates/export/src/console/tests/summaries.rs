use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::telemetry;

// METR-05.
const BOUNDARIES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

fn messaging(operation: &'static str, destination: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "memory"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", destination),
        KeyValue::new("server.port", 4222),
    ]
}

fn measure(provider: &SdkMeterProvider) {
    let meter = provider.meter("test");
    let duration =
        meter.f64_histogram("messaging.process.duration").with_unit("s").with_boundaries(BOUNDARIES.to_vec()).build();
    let mut attributes = messaging("process", "orders.placed");
    attributes.push(KeyValue::new("messaging.consumer.group.name", "stock"));
    for seconds in [0.012, 0.014, 0.018, 0.4] {
        duration.record(seconds, &attributes);
    }
    attributes.push(KeyValue::new("error.type", "OutOfStock"));
    duration.record(0.03, &attributes);
    let sent = meter.u64_counter("messaging.client.sent.messages").with_unit("{message}").build();
    sent.add(5, &messaging("publish", "stock.reserved"));
    meter.i64_up_down_counter("throughline.in_flight").build().add(2, &[]);
    meter.f64_gauge("oven").with_unit("Cel").build().record(180.5, &[KeyValue::new("door", "open")]);
}

#[tokio::test]
async fn the_metrics_are_a_table() {
    let (telemetry, paper) = telemetry(100);
    measure(&telemetry.service("stock").meter_provider());
    let sent = telemetry.meter_provider().meter("test").u64_counter("messaging.client.sent.messages").build();
    sent.add(12, &messaging("publish", "orders.placed"));
    telemetry.shutdown().await.unwrap();

    assert_eq!(paper.text(), include_str!("metrics-100.txt"));
}

#[tokio::test]
async fn a_narrow_table_does_not_wrap() {
    let (telemetry, paper) = telemetry(60);
    measure(&telemetry.service("a-service-with-a-long-name").meter_provider());
    telemetry.shutdown().await.unwrap();
    for line in paper.text().lines() {
        assert!(line.chars().count() <= 60, "{line}");
    }
}

#[tokio::test]
async fn each_flush_draws_all_that_was_measured() {
    let (telemetry, paper) = telemetry(100);
    let sent = telemetry.meter_provider().meter("test").u64_counter("sent").build();
    for count in ["1", "2"] {
        sent.add(1, &[]);
        telemetry.flush().await.unwrap();
        let text = paper.text();
        assert_eq!(text.lines().rev().nth(1).and_then(|line| line.split_whitespace().last()), Some(count));
    }
}

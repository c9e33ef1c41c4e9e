use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use throughline_core::telemetry::semconv::{SCHEMA_URL, SCOPE_NAME};

use crate::conformance::bench::Bench;
use crate::conformance::{Door, Harness, Job, Message, Work};

// GEN-01 and GEN-02 for metrics; each row checks them for its spans and events.
pub async fn one_scope<H: Harness, D: Door<H>>() {
    let bench = Bench::<H>::start().await;
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
    let door = D::open(&bench.harness, bench.engine_with(|builder| builder.meter_provider(&provider))).await;
    let intake = door.take(&bench.harness, &bench.spec("orders"), Job::new(Work::Succeed, 1)).await;
    let sent = door.send(Message::new(bench.name("orders"), "{}")).await;
    assert!(sent.is_ok(), "the door failed: {sent:?}");
    intake.finish().await;
    assert!(provider.force_flush().is_ok(), "the metrics are not collected");
    let collected = exporter.get_finished_metrics().unwrap_or_default();
    let scopes: Vec<_> = collected.iter().flat_map(|resource| resource.scope_metrics()).collect();
    assert!(!scopes.is_empty(), "there are no metrics at all");
    for metrics in scopes {
        let scope = metrics.scope();
        let found = (scope.name(), scope.version(), scope.schema_url());
        assert_eq!(found, (SCOPE_NAME, Some(env!("CARGO_PKG_VERSION")), Some(SCHEMA_URL)), "GEN-01, GEN-02");
    }
    bench.stop().await;
}

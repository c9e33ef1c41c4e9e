//! Listens to the log of the process, so it has a process of its own.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use throughline_export::{ExportErrorKind, Telemetry, console};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::support::Paper;

/// The warnings of this process, with their fields.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn about(&self, metric: &str) -> Vec<String> {
        let said = self.0.lock().unwrap();
        said.iter().filter(|line| line.contains(&format!("metric=\"{metric}\""))).cloned().collect()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        struct Fields(String);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        if *event.metadata().level() == tracing::Level::WARN {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }
}

/// Counts this many different things.
fn count(telemetry: &Telemetry, metric: &'static str, values: i64) {
    let counter = telemetry.meter_provider().meter("test").u64_counter(metric).build();
    (0..values).for_each(|value| counter.add(1, &[KeyValue::new("item", value)]));
}

#[tokio::test]
async fn a_metric_with_more_series_than_its_limit_is_told_once() {
    let warnings = Warnings::default();
    tracing_subscriber::registry().with(warnings.clone()).init();
    let paper = Paper::default();
    let telemetry = console().writer(paper.clone()).cardinality_limit(3).build().unwrap();
    count(&telemetry, "few", 3);
    count(&telemetry, "many", 10);
    telemetry.meter_provider().meter("test").f64_histogram("spread").build().record(1.0, &[]);
    let spread = telemetry.meter_provider().meter("test").f64_histogram("spread").build();
    (0..10).for_each(|value| spread.record(1.0, &[KeyValue::new("item", value)]));
    telemetry.flush().await.unwrap();
    count(&telemetry, "many", 20);
    telemetry.shutdown().await.unwrap();

    for metric in ["many", "spread"] {
        let said = warnings.about(metric);
        assert!(said.len() == 1 && said[0].contains("limit=3") && said[0].contains("`cardinality_limit`"), "{said:?}");
    }
    assert!(warnings.about("few").is_empty(), "{:?}", warnings.about("few"));
    assert!(paper.text().contains("otel.metric.overflow=true"), "{}", paper.text());

    #[cfg(feature = "prometheus")]
    on_the_page(&warnings).await;
}

#[cfg(feature = "prometheus")]
async fn on_the_page(warnings: &Warnings) {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    let free = TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let telemetry = throughline_export::prometheus().address(free).cardinality_limit(3).build().unwrap();
    count(&telemetry, "orders", 10);
    let read = |address: SocketAddr| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(read(free).contains("otel_metric_overflow=\"true\""));
    read(free);
    assert_eq!(warnings.about("orders_total").len(), 1);
    telemetry.shutdown().await.unwrap();
}

#[test]
fn a_limit_that_is_none_is_an_error() {
    for limit in [0, usize::MAX] {
        let error = console().cardinality_limit(limit).build().unwrap_err();
        assert_eq!(error.kind(), ExportErrorKind::Configuration);
        assert!(error.to_string().contains("from 1 to 1000000"), "{error}");
    }
}

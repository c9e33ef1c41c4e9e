//! What a program reads from the page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;

use super::{Prometheus, prometheus};
use crate::{ExportErrorKind, Setup, Telemetry};

/// A free port at this moment.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn build(setup: Setup<Prometheus>, variables: &[(&str, &str)]) -> Telemetry {
    let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    setup.service_name("shop").build_in(&lookup).unwrap()
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const READ: &str = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test(flavor = "current_thread")]
async fn metrics_are_on_the_page_until_the_shutdown() {
    let address = free();
    let port = address.port().to_string();
    let telemetry = build(prometheus(), &[("OTEL_EXPORTER_PROMETHEUS_PORT", &port)]);
    let meter = telemetry.meter_provider().meter("test");
    meter.u64_counter("orders").with_unit("{order}").build().add(7, &[KeyValue::new("item", "lamp \"large\"\n")]);
    meter.f64_histogram("messaging.process.duration").with_unit("s").build().record(0.25, &[]);

    let page = ask(address, READ);
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    for line in [
        r#"orders_total{item="lamp \"large\"\n""#,
        "messaging_process_duration_seconds_count",
        r#"service_name="shop""#,
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(ask(address, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(
        ask(address, "POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
            .starts_with("HTTP/1.1 405")
    );
    assert!(ask(address, "what?\r\n\r\n").starts_with("HTTP/1.1 400"));

    telemetry.shutdown().await.unwrap();
    assert!(TcpListener::bind(address).is_ok() || TcpStream::connect(address).is_err());
}

#[test]
fn a_port_that_is_taken_is_an_error_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = prometheus().address(taken.local_addr().unwrap()).build_in(&|_| None).unwrap_err();
    assert_eq!(error.kind(), ExportErrorKind::Configuration);
    assert!(error.to_string().contains("set another address or port"), "{error}");
}

// ENV-15.
#[test]
fn what_cannot_be_understood_is_a_warning() {
    let port = free().port().to_string();
    let host = [("OTEL_EXPORTER_PROMETHEUS_HOST", "everywhere"), ("OTEL_EXPORTER_PROMETHEUS_PORT", &*port)];
    assert_eq!(build(prometheus(), &host).warnings().len(), 1);
}

// ENV-03.
#[test]
fn metrics_that_are_switched_off_are_not_shown() {
    assert!(build(prometheus(), &[("OTEL_METRICS_EXPORTER", "none")]).is_disabled());
}

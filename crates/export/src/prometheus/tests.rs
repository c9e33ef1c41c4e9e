//! What a program reads from the page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;

use super::destination::PrometheusDestination;
use super::page::Page;
use super::{Prometheus, host, port, prometheus};
use crate::environment::Environment;
use crate::providers::Choices;
use crate::resource::Service;
use crate::{ExportErrorKind, Setup, Telemetry};

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
    // An address that no other test takes a port of.
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = listener.local_addr().unwrap();
    let page = PrometheusDestination::new(Page::start(listener).unwrap());
    let service = Service::named("shop".to_owned());
    let telemetry = Telemetry::new(service, Choices::default(), vec![Box::new(page)], Vec::new());
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
    // A program that another test starts right now has the listener, too, until it runs.
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "the page is still there");
    }
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
    for (said, expected, warnings) in [
        (["", ""], "127.0.0.1:9464", 0),
        (["localhost", "80"], "127.0.0.1:80", 0),
        (["0.0.0.0", "9000"], "0.0.0.0:9000", 0),
        (["everywhere", "70000"], "127.0.0.1:9464", 2),
        (["::1", "http"], "[::1]:9464", 1),
    ] {
        let lookup = |name: &str| Some(said[usize::from(name.ends_with("PORT"))].to_owned());
        let mut environment = Environment::new(&lookup);
        let address = SocketAddr::new(host(&mut environment), port(&mut environment));
        assert_eq!((address.to_string().as_str(), environment.into_warnings().len()), (expected, warnings), "{said:?}");
    }
}

// ENV-03.
#[test]
fn metrics_that_are_switched_off_are_not_shown() {
    assert!(build(prometheus(), &[("OTEL_METRICS_EXPORTER", "none")]).is_disabled());
}

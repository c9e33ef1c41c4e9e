//! Telemetry on its way to a backend that takes it, is slow, refuses, or is away.

mod receiver;
#[cfg(feature = "tls")]
mod secure;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Tracer, TracerProvider};

use self::receiver::{Answer, Receiver};
use super::{Otlp, Protocol, otlp};
use crate::{Setup, Telemetry};

const PROTOCOLS: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];

fn to(receiver: &Receiver, protocol: Protocol) -> Setup<Otlp> {
    let address = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
    otlp().endpoint(format!("http://{address}")).protocol(protocol).service_name("shop")
}

/// Builds with only these variables.
fn build(setup: Setup<Otlp>, variables: &[(&str, &str)]) -> Telemetry {
    let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    setup.build_in(&lookup).unwrap()
}

/// Tells a span, a metric and a log record.
fn tell(telemetry: &Telemetry) {
    span(telemetry);
    telemetry.meter_provider().meter("test").u64_counter("orders").build().add(1, &[]);
    let logger = telemetry.logger_provider().logger("test");
    let mut record = logger.create_log_record();
    record.set_body("sold".into());
    logger.emit(record);
}

fn span(telemetry: &Telemetry) {
    telemetry.tracer_provider().tracer("test").in_span("checkout", |_| ());
}

fn named(name: &str) -> (String, String) {
    ("shop".to_owned(), name.to_owned())
}

#[tokio::test(flavor = "current_thread")]
async fn all_signals_arrive_by_each_protocol() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        let telemetry = build(to(&receiver, protocol).header("token", "t1"), &[]);
        tell(&telemetry);
        let report = telemetry.shutdown().await.unwrap();

        let came = receiver.came();
        assert_eq!((&came.spans, &came.logs), (&vec![named("checkout")], &vec![named("sold")]), "{protocol}");
        assert!(came.metrics.contains(&named("orders")), "{protocol}: {:?}", came.metrics);
        assert!(came.requests.iter().all(|(token, _)| token.as_deref() == Some("t1")), "{protocol}: {came:?}");
        assert_eq!((report.exported_spans, report.dropped_spans, report.unfinished_spans), (1, 0, 0), "{protocol}");
        assert_eq!((report.exported_logs, report.dropped_logs), (1, 0), "{protocol}");
        assert_eq!((report.metric_exports, report.failed_metric_exports), (1, 0), "{protocol}");
    }
}

#[tokio::test]
async fn a_backend_for_traces_gets_nothing_else() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        let telemetry = build(to(&receiver, protocol).traces_only(), &[]);
        tell(&telemetry);
        let report = telemetry.shutdown().await.unwrap();
        let came = receiver.came();
        assert_eq!(came.spans, [named("checkout")], "{protocol}");
        assert!(came.metrics.is_empty() && came.logs.is_empty(), "{protocol}: {came:?}");
        assert_eq!((report.dropped_logs, report.failed_metric_exports), (0, 0), "{protocol}");
    }
}

/// Blocks a program without a runtime, since there is nothing that it could hold up.
#[test]
fn no_runtime_is_needed() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        let telemetry = build(to(&receiver, protocol), &[]);
        tell(&telemetry);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(telemetry.flush()).unwrap();
        assert_eq!(receiver.came().spans, [named("checkout")], "{protocol}");
    }
}

/// Without a runtime a shutdown does its work before it returns.
#[test]
fn a_shutdown_needs_no_runtime() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        let telemetry = build(to(&receiver, protocol), &[]);
        tell(&telemetry);
        let mut context = std::task::Context::from_waker(Waker::noop());
        let Poll::Ready(report) = pin!(telemetry.shutdown()).poll(&mut context) else { panic!("it waits: {protocol}") };
        assert_eq!(report.unwrap().exported_spans, 1, "{protocol}");
        assert_eq!(receiver.came().spans, [named("checkout")], "{protocol}");
    }
}

#[tokio::test]
async fn what_is_sent_can_be_compressed() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        let telemetry = build(to(&receiver, protocol).gzip(), &[("OTEL_METRICS_EXPORTER", "none")]);
        span(&telemetry);
        assert_eq!(telemetry.shutdown().await.unwrap().exported_spans, 1);
        assert_eq!(receiver.came().requests, [(None, Some("gzip".to_owned()))], "{protocol}");
    }
}

#[tokio::test]
async fn a_signal_that_is_switched_off_is_not_sent() {
    let receiver = Receiver::start([]);
    let telemetry = build(to(&receiver, Protocol::HttpProtobuf), &[("OTEL_LOGS_EXPORTER", "none")]);
    tell(&telemetry);
    let report = telemetry.shutdown().await.unwrap();
    let came = receiver.came();
    assert!(came.logs.is_empty() && came.spans.len() == 1 && !came.metrics.is_empty(), "{came:?}");
    assert_eq!((report.exported_logs, report.dropped_logs), (0, 0));
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_and_another_is_not() {
    let none = [("OTEL_METRICS_EXPORTER", "none")];
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([Answer::Refuse(503), Answer::Refuse(503)]);
        let telemetry = build(to(&receiver, protocol), &none);
        span(&telemetry);
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.exported_spans, report.dropped_spans), (1, 0), "{protocol}");
        assert_eq!(receiver.came().requests.len(), 3, "{protocol}");

        let receiver = Receiver::start([Answer::Refuse(400)]);
        let telemetry = build(to(&receiver, protocol), &none);
        span(&telemetry);
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.exported_spans, report.dropped_spans), (0, 1), "{protocol}");
        assert_eq!(receiver.came().requests.len(), 1, "{protocol}");
    }
}

/// Each signal of its own, so that a test knows which answer is whose.
fn only(signal: &str) -> Vec<(&'static str, &'static str)> {
    let all = ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"];
    all.into_iter().filter(|name| !name.contains(signal)).map(|name| (name, "none")).collect()
}

#[tokio::test]
async fn what_a_backend_refuses_of_an_export_counts_as_dropped() {
    for protocol in PROTOCOLS {
        let partly = |count| Receiver::start([Answer::Partly(count)]);
        let receiver = partly(2);
        let telemetry = build(to(&receiver, protocol), &only("TRACES"));
        (0..5).for_each(|_| span(&telemetry));
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.exported_spans, report.dropped_spans), (3, 2), "{protocol}");
        assert_eq!(receiver.came().requests.len(), 1, "{protocol}: what is refused is not sent again");

        let receiver = partly(1_000_000);
        let telemetry = build(to(&receiver, protocol), &only("LOGS"));
        tell(&telemetry);
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.exported_logs, report.dropped_logs), (0, 1), "{protocol}: no more than there was");

        let receiver = partly(1);
        let telemetry = build(to(&receiver, protocol), &only("METRICS"));
        tell(&telemetry);
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.metric_exports, report.failed_metric_exports), (0, 1), "{protocol}");
    }
}

/// All signals together have the time that the code says, whatever hangs.
#[tokio::test]
async fn a_shutdown_ends_in_time_with_a_backend_that_never_answers() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([Answer::Silence; 20]);
        let setup = to(&receiver, protocol).timeout(Duration::from_secs(60)).shutdown_timeout(Duration::from_secs(1));
        let telemetry = build(setup, &[]);
        tell(&telemetry);
        let stock = telemetry.service("stock");
        stock.tracer_provider().tracer("test").in_span("count", |_| ());
        let begun = Instant::now();
        let report = telemetry.shutdown().await.unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(900), "{protocol}: it is waited for, {took:?}");
        assert!(took < Duration::from_secs(4), "{protocol}: {took:?}, and all together have one second");
        assert_eq!((report.exported_spans, report.dropped_spans), (0, 2), "{protocol}");
        assert_eq!((report.exported_logs, report.dropped_logs), (0, 1), "{protocol}");
        assert_eq!(telemetry.shutdown().await.unwrap(), report, "{protocol}");
    }
}

/// Spans that are held up do not keep metrics, which another endpoint takes, from their last export.
#[tokio::test]
async fn metrics_are_exported_while_spans_hang() {
    let (silent, receiver) = (Receiver::start([Answer::Silence; 20]), Receiver::start([]));
    let setup = otlp().service_name("shop").timeout(Duration::from_secs(60)).shutdown_timeout(Duration::from_secs(2));
    let (spans, rest) = (format!("http://{}/v1/traces", silent.http), format!("http://{}", receiver.http));
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", spans.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", rest.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
    ];
    let telemetry = build(setup, &variables);
    tell(&telemetry);
    let report = telemetry.shutdown().await.unwrap();
    assert_eq!((report.dropped_spans, report.exported_logs, report.metric_exports), (1, 1, 1));
    assert!(receiver.came().metrics.contains(&named("orders")));
}

/// A program does not wait for a backend that does not answer, and holds no more than it was told to.
#[tokio::test]
async fn spans_that_find_no_room_are_dropped_and_counted() {
    const ROOM: usize = 100;
    const SPANS: u64 = 10_000;
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([Answer::Silence]);
        let setup = to(&receiver, protocol).timeout(Duration::from_secs(1));
        let telemetry = build(setup, &[("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_METRICS_EXPORTER", "none")]);
        for _ in 0..SPANS {
            span(&telemetry);
        }
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!(report.exported_spans + report.dropped_spans, SPANS, "{protocol}: {report}");
        assert!(report.exported_spans <= 2 * ROOM as u64, "{protocol}: {report}");
        assert_eq!(receiver.came().spans.len() as u64, report.exported_spans, "{protocol}: {report}");
    }
}

#[tokio::test]
async fn a_backend_that_is_away_ends_a_shutdown_in_time_and_all_counts_as_dropped() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        // An address that no other test takes a port of.
        let closed = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let telemetry = build(to(&receiver, protocol).endpoint(format!("http://{closed}")), &[]);
        tell(&telemetry);
        let begun = Instant::now();
        let report = telemetry.shutdown().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(16), "{protocol}");
        assert_eq!((report.exported_spans, report.dropped_spans), (0, 1), "{protocol}");
        assert_eq!((report.exported_logs, report.dropped_logs), (0, 1), "{protocol}");
        assert_eq!((report.metric_exports, report.failed_metric_exports), (0, 1), "{protocol}");
        assert_eq!(telemetry.shutdown().await.unwrap(), report, "{protocol}");
    }
}

#[tokio::test]
async fn what_comes_after_an_outage_is_delivered() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([Answer::Refuse(400)]);
        let telemetry = build(to(&receiver, protocol), &[("OTEL_METRICS_EXPORTER", "none")]);
        span(&telemetry);
        telemetry.flush().await.unwrap_err();
        span(&telemetry);
        telemetry.flush().await.unwrap();
        receiver.wait(|came| came.spans.len() == 1);
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.exported_spans, report.dropped_spans), (1, 1), "{protocol}");
    }
}

/// A backend whose machine is gone does not say so: the connection just goes silent.
#[tokio::test]
async fn a_connection_that_went_silent_is_made_again() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start([]);
        let backend = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
        let (address, connections) = silent_at_first(backend);
        let setup = to(&receiver, protocol).endpoint(format!("http://{address}")).timeout(Duration::from_millis(500));
        let telemetry = build(setup, &only("TRACES"));
        span(&telemetry);
        telemetry.flush().await.unwrap_err();
        span(&telemetry);
        telemetry.flush().await.unwrap();
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!((report.exported_spans, report.dropped_spans), (1, 1), "{protocol}");
        assert!(connections.load(Ordering::Relaxed) >= 2, "{protocol}");
    }
}

/// Passes connections on to a backend, but for the first one, which it takes and leaves alone. Counts them.
fn silent_at_first(backend: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = connections.clone();
    std::thread::spawn(move || {
        let first = listener.accept().unwrap().0;
        counted.fetch_add(1, Ordering::Relaxed);
        for client in listener.incoming().map(Result::unwrap) {
            counted.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(backend).unwrap();
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
        drop(first);
    });
    (address, connections)
}

/// The counts of what was lost are metrics themselves.
#[tokio::test]
async fn what_is_lost_is_a_metric() {
    let receiver = Receiver::start([Answer::Refuse(400)]);
    let telemetry = build(to(&receiver, Protocol::HttpProtobuf), &[]);
    span(&telemetry);
    telemetry.shutdown().await.unwrap();
    let exported = |error: &str, value| ("otel.sdk.exporter.span.exported".to_owned(), error.to_owned(), value);
    let processed = |error: &str, value| ("otel.sdk.processor.span.processed".to_owned(), error.to_owned(), value);
    assert_eq!(receiver.came().counts, [exported("_OTHER", 1), processed("", 1)]);

    let receiver = Receiver::start([Answer::Partly(2)]);
    let telemetry = build(to(&receiver, Protocol::HttpProtobuf), &[]);
    (0..5).for_each(|_| span(&telemetry));
    telemetry.shutdown().await.unwrap();
    assert_eq!(receiver.came().counts, [exported("", 3), exported("rejected", 2), processed("", 5)]);
}

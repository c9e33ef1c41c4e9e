//! Services send, and the program draws.

#![cfg(unix)]
// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod program;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use throughline_export::{Protocol, Telemetry, otlp};

use self::program::{Program, command};

/// A service that sends to the program. Nothing is read of the environment but what the test runner has.
fn service(name: &str, protocol: Protocol, address: SocketAddr) -> Telemetry {
    let setup = otlp().service_name(name).protocol(protocol).endpoint(format!("http://{address}"));
    setup.gzip().build().unwrap()
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(millis)
}

/// A span of a service, in milliseconds from the start of the test; returns the context of its children.
fn span(service: &Telemetry, parent: &Context, kind: SpanKind, name: &'static str, from: u64, to: u64) -> Context {
    make(service, parent, SpanBuilder::from_name(name).with_kind(kind), from, to)
}

fn make(service: &Telemetry, parent: &Context, builder: SpanBuilder, from: u64, to: u64) -> Context {
    finish(service, parent, builder, Status::Unset, from, to)
}

fn finish(service: &Telemetry, parent: &Context, builder: SpanBuilder, status: Status, from: u64, to: u64) -> Context {
    let tracer = service.tracer_provider().tracer("test");
    let span = tracer.build_with_context(builder.with_start_time(at(from)), parent);
    let context = parent.with_span(span);
    context.span().set_status(status);
    context.span().end_with_timestamp(at(to));
    context
}

/// The context as it arrives in another service.
fn sent(context: &Context) -> Context {
    Context::new().with_remote_span_context(context.span().span_context().clone())
}

fn short(context: &Context) -> String {
    context.span().span_context().trace_id().to_string()[..8].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_over_both_protocols_are_one_picture() {
    let program = Program::start(&["--width", "100", "--baggage", "tenant"]);
    let shop = service("shop", Protocol::Grpc, program.grpc);
    let stock = service("stock", Protocol::HttpProtobuf, program.http);
    let publish = SpanBuilder::from_name("publish orders").with_kind(SpanKind::Producer);
    let publish = make(&shop, &Context::new(), publish.with_attributes([KeyValue::new("tenant", "acme")]), 0, 2);
    let process = span(&stock, &sent(&publish), SpanKind::Consumer, "process orders", 12, 30);
    let reserve = SpanBuilder::from_name("reserve").with_attributes([KeyValue::new("items", 3)]);
    finish(&stock, &process, reserve, Status::error("no chairs left"), 14, 20);
    for service in [shop, stock] {
        service.shutdown().await.unwrap();
    }
    let drawn = program.wait_for("reserve");
    let id = short(&publish);
    assert_eq!(
        drawn,
        format!(
            "\
trace {id}  3 spans  2 services  30.0 ms  1 error                 0 ms      10        20
shop  publish orders                                          2.0 ms  ██
stock └─ process orders                     queued 10.0 ms   18.0 ms    ░░░░░░░░░░██████████████████
stock    └─ reserve  items=3                                  6.0 ms                ██████
              ✗ no chairs left
baggage tenant=acme

"
        )
    );
    let (output, errors, status) = program.end();
    assert!(output.starts_with(&drawn), "{output}");
    assert!(errors.contains("\n1 trace drawn with 3 spans"), "{errors}");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn either_port_takes_either_protocol_and_json_too() {
    let program = Program::start(&[]);
    for (name, protocol, address) in [
        ("grpc", Protocol::Grpc, program.http),
        ("binary", Protocol::HttpProtobuf, program.grpc),
        ("json", Protocol::HttpJson, program.grpc),
        ("json-too", Protocol::HttpJson, program.http),
    ] {
        let sender = service(name, protocol, address);
        let attributes = [KeyValue::new("number", 7), KeyValue::new("share", 0.5), KeyValue::new("text", "ä")];
        make(&sender, &Context::new(), SpanBuilder::from_name("work").with_attributes(attributes), 0, 1);
        let meter = sender.meter_provider().meter("test");
        meter.f64_histogram(format!("of.{name}")).build().record(2.0, &[]);
        sender.shutdown().await.unwrap();
    }
    let (output, errors, _) = program.end();
    assert_eq!(output.matches("number=7 share=0.5 text=ä").count(), 4, "{output}\n{errors}");
    for metric in ["of.grpc", "of.binary", "of.json", "of.json-too"] {
        assert!(output.contains(metric), "no {metric} in {output}");
    }
}

fn emit(service: &Telemetry, span: Option<&Context>, severity: Severity, text: &'static str) {
    let logger = service.logger_provider().logger("test");
    let mut record = logger.create_log_record();
    record.set_severity_number(severity);
    record.set_body(AnyValue::from(text));
    if let Some(span) = span {
        let span = span.span().span_context().clone();
        record.set_trace_context(span.trace_id(), span.span_id(), Some(TraceFlags::SAMPLED));
    }
    logger.emit(record);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_stand_beneath_their_span_and_others_alone() {
    let program = Program::start(&["--wait", "1s"]);
    let stock = service("stock", Protocol::Grpc, program.grpc);
    let process = span(&stock, &Context::new(), SpanKind::Consumer, "process orders", 0, 9);
    emit(&stock, Some(&process), Severity::Warn, "3 left");
    emit(&stock, None, Severity::Info, "started");
    let elsewhere = SpanContext::new(TraceId::from(7), SpanId::from(7), TraceFlags::SAMPLED, true, Default::default());
    emit(&stock, Some(&Context::new().with_remote_span_context(elsewhere)), Severity::Error, "unsampled");
    stock.shutdown().await.unwrap();
    let (output, _, _) = program.end();
    assert!(output.contains("process orders"), "{output}");
    assert!(output.contains("\n        · WARN 3 left\n"), "{output}");
    assert!(output.contains("stock INFO started\n"), "{output}");
    assert!(output.contains("stock ERROR unsampled  (trace 00000000)\n"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_drawn_on_enter_and_at_the_end() {
    let mut program = Program::start(&[]);
    let stock = service("stock", Protocol::HttpProtobuf, program.http);
    let sent = stock.meter_provider().meter("test").u64_counter("orders.sent").build();
    for count in ["5", "12"] {
        sent.add(if count == "5" { 5 } else { 7 }, &[]);
        stock.flush().await.unwrap();
        if count == "5" {
            program.press_enter();
            let drawn = program.wait_for("orders.sent");
            assert!(drawn.contains("metrics ") && drawn.contains(" 5\n"), "{drawn}");
        }
    }
    let (output, _, _) = program.end();
    assert_eq!(output.matches("orders.sent").count(), 2, "{output}");
    assert!(output.contains(" 12\n"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continuation_is_marked_and_a_batch_is_linked() {
    let program = Program::start(&["--quiet", "20ms", "--wait", "20ms"]);
    let shop = service("shop", Protocol::Grpc, program.grpc);
    let publish = span(&shop, &Context::new(), SpanKind::Producer, "publish orders", 0, 2);
    shop.flush().await.unwrap();
    let id = short(&publish);
    program.wait_for(&format!("trace {id}  1 span"));
    span(&shop, &sent(&publish), SpanKind::Consumer, "process orders", 5, 9);
    shop.flush().await.unwrap();
    program.wait_for(&format!("trace {id} (continued)  1 span"));
    let link = Link::with_context(publish.span().span_context().clone());
    make(&shop, &Context::new(), SpanBuilder::from_name("process batch").with_links(vec![link]), 10, 12);
    shop.shutdown().await.unwrap();
    program.wait_for(&format!("linked from {id}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_select_traces() {
    for (options, drawn) in [
        (&[][..], ["fast", "slow", "fails"].as_slice()),
        (&["--service", "stock"], &["fails"]),
        (&["--errors"], &["fails"]),
        (&["--slower-than", "200ms"], &["slow"]),
        (&["--slower-than", "10ms", "--service", "stock"], &[]),
    ] {
        let program = Program::start(options);
        let shop = service("shop", Protocol::HttpProtobuf, program.http);
        let stock = service("stock", Protocol::HttpProtobuf, program.http);
        span(&shop, &Context::new(), SpanKind::Internal, "fast", 0, 1);
        span(&shop, &Context::new(), SpanKind::Internal, "slow", 0, 200);
        finish(&stock, &Context::new(), SpanBuilder::from_name("fails"), Status::error("no"), 0, 1);
        for service in [shop, stock] {
            service.shutdown().await.unwrap();
        }
        let (output, errors, _) = program.end();
        for name in ["fast", "slow", "fails"] {
            assert_eq!(output.contains(name), drawn.contains(&name), "{name} with {options:?} in {output}");
        }
        assert_eq!(errors.contains("left out by the options"), drawn.len() < 3, "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_a_line_of_json() {
    let program = Program::start(&["--json", "--baggage", "tenant"]);
    let shop = service("shop", Protocol::Grpc, program.grpc);
    let publish = SpanBuilder::from_name("publish \u{9b}2J\x1b[31m").with_kind(SpanKind::Producer);
    let attributes = [KeyValue::new("items", 3), KeyValue::new("tenant", "acme")];
    let publish = make(&shop, &Context::new(), publish.with_attributes(attributes), 0, 2);
    let process = SpanBuilder::from_name("process").with_kind(SpanKind::Consumer);
    let process = finish(&shop, &sent(&publish), process, Status::error("no"), 12, 30);
    emit(&shop, Some(&process), Severity::Info, "packed");
    shop.meter_provider().meter("test").u64_counter("orders.sent").build().add(1, &[]);
    shop.shutdown().await.unwrap();
    let (output, errors, _) = program.end();

    assert!(errors.contains("orders.sent"), "the metrics are beside: {errors}");
    assert_eq!(output.lines().count(), 1, "{output}");
    assert!(!output.chars().any(|character| character != '\n' && character.is_control()), "{output:?}");
    let trace: serde_json::Value = serde_json::from_str(&output).unwrap();
    let context = publish.span().span_context().clone();
    let process_id = process.span().span_context().span_id().to_string();
    assert_eq!(
        trace,
        serde_json::json!({
            "trace_id": context.trace_id().to_string(),
            "continued": false,
            "start_unix_nano": "1800000000000000000",
            "duration_ms": 30.0,
            "services": ["shop"],
            "errors": 1,
            "linked_from": [],
            "baggage": {"tenant": "acme"},
            "spans": [
                {
                    "span_id": context.span_id().to_string(), "parent_span_id": null, "service": "shop",
                    "name": "publish \u{9b}2J\x1b[31m", "kind": "producer", "offset_ms": 0.0, "duration_ms": 2.0,
                    "queued_ms": null, "error": null, "attributes": {"items": 3}, "links": [], "said": [],
                },
                {
                    "span_id": process_id, "parent_span_id": context.span_id().to_string(), "service": "shop",
                    "name": "process", "kind": "consumer", "offset_ms": 12.0, "duration_ms": 18.0,
                    "queued_ms": 10.0, "error": "no", "attributes": {}, "links": [], "said": ["INFO packed"],
                },
            ],
        })
    );
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (option, other) in [("--grpc-port", "--http-port"), ("--http-port", "--grpc-port")] {
        let output = command().args([option, &port, other, "0"]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        for part in [&format!("error: port {port} of 127.0.0.1 is taken"), "Collector", "Jaeger", option] {
            assert!(error.contains(part), "no `{part}` in {error}");
        }
    }
}

#[test]
fn an_address_of_another_machine_is_an_error() {
    let output = command().args(["--listen", "192.0.2.1", "--grpc-port", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("192.0.2.1 is no address of this machine"));
}

#[test]
fn an_option_that_is_not_understood_ends_with_2() {
    let output = command().args(["--slower-than", "fast"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("such as 200ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_nobody_reads_what_it_draws() {
    let mut child = command()
        .args(["--grpc-port", "0", "--http-port", "0", "--quiet", "20ms", "--wait", "20ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = child.stderr.take().unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        said.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    let http = line.trim_end().rsplit("http://").next().unwrap().parse().unwrap();
    let shop = service("shop", Protocol::HttpProtobuf, http);
    span(&shop, &Context::new(), SpanKind::Internal, "work", 0, 1);
    shop.shutdown().await.unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("\nerror: "), "{rest}");
}

//! What the program answers, as OTLP says, and that nothing a stranger sends does harm.

#![cfg(unix)]
// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod program;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Summary,
    SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};

use self::program::{Program, send};

const BINARY: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const TRACES: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// More than the program takes.
const LARGE: usize = 4 * 1024 * 1024 + 1;

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: text(value), ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() })
}

fn span(id: u64, parent: u64, name: &str) -> Span {
    Span {
        trace_id: 7_u128.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        name: name.to_owned(),
        start_time_unix_nano: 1_800_000_000_000_000_000,
        end_time_unix_nano: 1_800_000_000_001_000_000,
        ..Span::default()
    }
}

fn traces(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

async fn post(address: SocketAddr, path: &str, kind: &str, encoding: &str, body: Vec<u8>) -> Response<Bytes> {
    let request = Request::post(format!("http://{address}{path}")).header("content-type", kind);
    let request = if encoding.is_empty() { request } else { request.header("content-encoding", encoding) };
    send(request.body(Full::from(body)).unwrap()).await
}

/// Calls a method of gRPC with a message in a frame.
async fn call(address: SocketAddr, method: &str, body: &[u8]) -> Response<Bytes> {
    let mut frame = vec![0];
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body);
    call_raw(address, method, "", frame).await
}

async fn call_raw(address: SocketAddr, method: &str, encoding: &str, frame: Vec<u8>) -> Response<Bytes> {
    let request = Request::post(format!("http://{address}/{method}")).header("content-type", "application/grpc");
    let request = if encoding.is_empty() { request } else { request.header("grpc-encoding", encoding) };
    send(request.header("te", "trailers").body(Full::from(frame)).unwrap()).await
}

fn grpc_status(response: &Response<Bytes>) -> &str {
    response.headers()["grpc-status"].to_str().unwrap()
}

fn packed(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

/// What an answer says in its body: code and message of the status.
fn status_of(response: &Response<Bytes>) -> (i64, String) {
    let status: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    (status["code"].as_i64().unwrap(), status["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_is_taken_is_answered_in_the_form_of_the_request() {
    let program = Program::start(&[]);
    let body = traces("shop", vec![span(1, 0, "binary")]).encode_to_vec();
    let answer = post(program.http, "/v1/traces", BINARY, "gzip", packed(&body)).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"]), (200, &BINARY.parse().unwrap()));
    assert!(answer.body().is_empty());
    let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000008",
        "spanId":"0000000000000001","name":"json","kind":5,"startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;
    let answer = post(program.http, "/v1/traces", "application/json; charset=utf-8", "", json.to_vec()).await;
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"{}".as_ref()), "{answer:?}");
    let (output, errors, status) = program.end();
    assert!(output.contains("binary") && output.contains("json") && status.success(), "{output}{errors}");
}

#[tokio::test]
async fn what_is_refused_is_counted_in_the_answer_and_at_the_end() {
    let program = Program::start(&[]);
    let zeros = Span { trace_id: vec![0; 16], ..span(1, 0, "no trace") };
    let short = Span { span_id: vec![1; 4], ..span(1, 0, "short id") };
    let body = traces("shop", vec![zeros, span(1, 0, "taken"), short]);
    let answer = post(program.http, "/v1/traces", BINARY, "", body.encode_to_vec()).await;
    let partial = ExportTraceServiceResponse::decode(answer.into_body()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.contains("trace_id"), "{}", partial.error_message);

    let answer = post(program.http, "/v1/traces", JSON, "", serde_json::to_vec(&body).unwrap()).await;
    let answer: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "2");

    let answer = call(program.grpc, TRACES, &body.encode_to_vec()).await;
    assert_eq!(grpc_status(&answer), "0");
    let partial = ExportTraceServiceResponse::decode(answer.into_body().slice(5..)).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);

    let (output, errors, _) = program.end();
    assert_eq!(output.matches("taken").count(), 1, "the same span, three times: {output}");
    assert!(!output.contains("no trace") && !output.contains("short id"));
    assert!(errors.contains("6 spans refused"), "{errors}");
}

#[tokio::test]
async fn bad_requests_over_http_have_a_status_and_a_reason() {
    let program = Program::start(&[]);
    let junk = || b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
    for (path, kind, encoding, body, status, code) in [
        ("/v1/traces", JSON, "", b"{\"resourceSpans\":7}".to_vec(), 400, 3),
        ("/v1/logs", JSON, "", b"".to_vec(), 400, 3),
        ("/v1/metrics", JSON, "", "[".repeat(100_000).into_bytes(), 400, 3),
        ("/v1/metrics", JSON, "gzip", b"not gzip".to_vec(), 400, 3),
        ("/v1/traces", JSON, "br", b"{}".to_vec(), 415, 3),
        ("/v1/traces", "text/plain", "", b"{}".to_vec(), 415, 3),
        ("/v1/traces", JSON, "", vec![b' '; LARGE], 413, 8),
        ("/v1/traces", JSON, "gzip", packed(&vec![b' '; LARGE]), 413, 8),
        ("/v1/profiles", JSON, "", b"{}".to_vec(), 404, 12),
    ] {
        let answer = post(program.http, path, kind, encoding, body).await;
        assert_eq!(answer.status().as_u16(), status, "{path} {kind} {encoding}: {answer:?}");
        let (said, message) = status_of(&answer);
        assert_eq!(said, code);
        assert!(!message.is_empty());
    }
    for path in ["/v1/traces", "/v1/metrics", "/v1/logs"] {
        let answer = post(program.http, path, BINARY, "", junk()).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"]), (400, &BINARY.parse().unwrap()));
        // The first field of the status is its code.
        assert_eq!(answer.body()[..2], [8, 3]);
    }
    let get = Request::get(format!("http://{}/v1/traces", program.http)).body(Full::default()).unwrap();
    assert_eq!(send(get).await.status().as_u16(), 405);
    let (_, errors, status) = program.end();
    assert!(status.success());
    assert!(errors.contains("11 requests refused: not understood"), "{errors}");
    assert!(errors.contains("2 requests refused: too large"), "{errors}");
}

#[tokio::test]
async fn bad_requests_over_grpc_have_the_codes_that_otlp_says() {
    let program = Program::start(&[]);
    for (answer, code) in [
        (call(program.grpc, TRACES, b"\x0a\xff\xff").await, "3"),
        (call(program.grpc, TRACES, &vec![0; LARGE]).await, "8"),
        (call_raw(program.grpc, TRACES, "", vec![9; 20]).await, "3"),
        (call_raw(program.grpc, TRACES, "", vec![0, 0]).await, "3"),
        (call_raw(program.grpc, TRACES, "gzip", b"\x01\0\0\0\x04junk".to_vec()).await, "3"),
        (call_raw(program.grpc, TRACES, "br", b"\x01\0\0\0\x04junk".to_vec()).await, "12"),
        (
            call(program.grpc, "opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", b"")
                .await,
            "12",
        ),
    ] {
        assert_eq!(grpc_status(&answer), code, "{answer:?}");
    }
    let large = packed(&vec![0; LARGE]);
    let mut frame = vec![1];
    frame.extend((large.len() as u32).to_be_bytes());
    frame.extend(large);
    assert_eq!(grpc_status(&call_raw(program.grpc, TRACES, "gzip", frame).await), "8");
    let (_, errors, status) = program.end();
    assert!(status.success());
    assert!(errors.contains("2 requests refused: too large"), "{errors}");
}

/// A span that is short on its way and takes much memory, so that as much as may wait is soon there.
fn heavy(id: u64) -> Span {
    let attributes = (0..128).map(|key| attribute(&key.to_string(), "")).collect();
    Span { attributes, trace_id: u128::from(id).to_be_bytes().to_vec(), ..span(id, 0, "heavy") }
}

#[tokio::test]
async fn where_nobody_reads_the_output_senders_are_told_to_come_again() {
    let program = Program::start(&["--quiet", "10ms", "--json"]);
    program.pause();
    let mut taken = 0;
    let busy = loop {
        let spans = (1..=300).map(|id| heavy(taken * 300 + id)).collect();
        let answer = post(program.http, "/v1/traces", BINARY, "", traces("shop", spans).encode_to_vec()).await;
        if answer.status().as_u16() != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 200, "everything was taken");
    };
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let over_grpc = call(program.grpc, TRACES, &traces("shop", vec![heavy(1); 300]).encode_to_vec()).await;
    assert_eq!(grpc_status(&over_grpc), "14");
    program.go_on();
    let (output, errors, status) = program.end();
    assert!(status.success());
    assert_eq!(output.lines().count() as u64, taken * 300, "all that was taken is there: {errors}");
    assert!(errors.contains("2 requests sent away until there is room"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_back_a_body_keeps_others_out_for_a_while_only() {
    let program = Program::start(&[]);
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 10\r\n\r\n");
    let mut slow: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(program.http).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(head.as_bytes()).unwrap();
    }
    let taken = || async { post(program.http, "/v1/traces", JSON, "", b"{}".to_vec()).await.status().as_u16() };
    let mut answers = Vec::new();
    while answers.last() != Some(&503) {
        answers.push(taken().await);
        assert!(answers.len() < 10_000, "each of 40 slow ones has room");
    }
    // Those that came too late are told so at once, the others when their time is over.
    let mut told: Vec<String> = Vec::new();
    for stream in &mut slow {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        told.push(String::from_utf8(answer.to_vec()).unwrap());
    }
    let count = |status: &str| told.iter().filter(|line| line.ends_with(status)).count();
    let (late, refused) = (count("408"), count("503"));
    // One place may have been that of a request above.
    assert!((31..=32).contains(&late) && late + refused == 40, "{told:?}");
    assert_eq!(taken().await, 200);
}

/// All that can be wrong with spans that OTLP allows.
#[tokio::test]
async fn spans_that_make_no_sense_are_drawn_as_well_as_they_can_be() {
    let program = Program::start(&["--width", "80"]);
    let spans = vec![
        span(1, 3, "circle of three"),
        span(2, 1, "b"),
        span(3, 2, "c"),
        span(4, 4, "its own parent"),
        span(5, 0, "twin"),
        Span { end_time_unix_nano: 1_800_000_000_000_500_000, ..span(5, 0, "twin") },
        Span { end_time_unix_nano: 1, ..span(6, 5, "backwards") },
        Span { start_time_unix_nano: u64::MAX, end_time_unix_nano: u64::MAX, ..span(7, 5, "far away") },
        Span { start_time_unix_nano: 0, end_time_unix_nano: 0, ..span(8, 5, "no time") },
        Span { kind: i32::MIN, status: Some(Status { code: 77, message: String::new() }), ..span(9, 5, "odd numbers") },
        span(10, 5, &"long ".repeat(10_000)),
    ];
    let answer = call(program.grpc, TRACES, &traces("shop", spans).encode_to_vec()).await;
    assert_eq!(grpc_status(&answer), "0");
    let chain = (1..=3_000).map(|id| Span { trace_id: vec![9; 16], ..span(id, id - 1, "deep") }).collect();
    assert_eq!(grpc_status(&call(program.grpc, TRACES, &traces("shop", chain).encode_to_vec()).await), "0");
    let (output, errors, status) = program.end();
    assert!(status.success(), "{errors}");
    for name in ["circle of three", "its own parent", "backwards", "far away", "no time", "odd numbers", "long long"] {
        assert!(output.contains(name), "no `{name}` in {output}");
    }
    assert_eq!(output.matches("twin").count(), 2);
    assert_eq!(output.matches("deep").count(), 3_000);
    for line in output.lines() {
        assert!(line.chars().count() <= 80, "too wide: {line}");
    }
    assert!(errors.contains("1 text or list cut"), "{errors}");
}

const NASTY: &str = "\x1b]0;evil\x07\x1b[2J\u{9b}31m\r\n\u{202e}\u{200b}\0";

/// A request of each signal with the same text everywhere.
fn everywhere(nasty: &str) -> [(&'static str, Vec<u8>); 3] {
    let attributes =
        vec![attribute(nasty, nasty), attribute("baggage.tenant", nasty), attribute(&format!("baggage.{nasty}"), "")];
    let mut nasty_span = span(1, 0, nasty);
    nasty_span.attributes =
        [attributes.clone(), vec![attribute("messaging.batch.message_count", nasty), attribute("error.type", nasty)]]
            .concat();
    nasty_span.status = Some(Status { code: 2, message: nasty.to_owned() });
    nasty_span.events = vec![Event { name: nasty.to_owned(), ..Event::default() }];
    nasty_span.links = vec![Link { trace_id: vec![5; 16], span_id: vec![5; 8], ..Link::default() }];
    let record = |trace_id: Vec<u8>, span_id: Vec<u8>| LogRecord {
        trace_id,
        span_id,
        severity_text: nasty.to_owned(),
        event_name: nasty.to_owned(),
        body: text(nasty),
        attributes: vec![attribute("exception.type", nasty), attribute("exception.message", nasty)],
        ..LogRecord::default()
    };
    let log_records = vec![
        record(7_u128.to_be_bytes().to_vec(), 1_u64.to_be_bytes().to_vec()),
        record(vec![3; 16], vec![3; 8]),
        record(Vec::new(), Vec::new()),
    ];
    let metric = Metric {
        name: nasty.to_owned(),
        unit: nasty.to_owned(),
        data: Some(Data::Gauge(Gauge { data_points: vec![NumberDataPoint { attributes, ..number(1.5) }] })),
        ..Metric::default()
    };
    let logs = ResourceLogs {
        resource: resource(nasty),
        scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    };
    [
        ("/v1/traces", traces(nasty, vec![nasty_span]).encode_to_vec()),
        ("/v1/logs", ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()),
        ("/v1/metrics", metrics(nasty, vec![metric]).encode_to_vec()),
    ]
}

fn number(value: f64) -> NumberDataPoint {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    NumberDataPoint { value: Some(Value::AsDouble(value)), ..NumberDataPoint::default() }
}

fn metrics(service: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = resource(service);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

#[tokio::test]
async fn nothing_that_is_sent_steers_the_terminal() {
    for options in [&[][..], &["--json"]] {
        let program = Program::start(options);
        for (path, body) in everywhere(NASTY) {
            assert_eq!(post(program.http, path, BINARY, "", body).await.status().as_u16(), 200);
        }
        let (output, errors, status) = program.end();
        assert!(status.success());
        assert!(output.contains("evil") && errors.contains("1 trace drawn"), "{output}{errors}");
        let both = output + &errors;
        let harmful = |sign: char| sign != '\n' && (sign.is_control() || sign == '\u{202e}' || sign == '\u{200b}');
        assert!(!both.chars().any(harmful), "{both:?}");
    }
}

#[tokio::test]
async fn measurements_that_make_no_sense_do_no_harm() {
    let program = Program::start(&[]);
    let histogram = |bounds: Vec<f64>, counts: Vec<u64>, min, max| {
        let point = HistogramDataPoint {
            count: u64::MAX,
            sum: Some(f64::INFINITY),
            explicit_bounds: bounds,
            bucket_counts: counts,
            min,
            max,
            ..HistogramDataPoint::default()
        };
        Data::Histogram(Histogram { data_points: vec![point.clone(), point], aggregation_temporality: 1 })
    };
    let data = vec![
        Data::Gauge(Gauge { data_points: vec![number(f64::NAN), NumberDataPoint::default()] }),
        histogram(vec![], vec![u64::MAX; 9], Some(9.0), Some(1.0)),
        histogram(vec![f64::NAN; 3], vec![1, 1, 1, 1], Some(f64::NAN), Some(f64::NAN)),
        histogram(vec![1.0; 100_000], vec![], None, None),
        Data::Summary(Summary { data_points: vec![SummaryDataPoint::default()] }),
    ];
    let named =
        |(at, data)| Metric { name: format!("odd.{at}"), unit: "s".to_owned(), data: Some(data), ..Metric::default() };
    let body = metrics("shop", data.into_iter().enumerate().map(named).collect()).encode_to_vec();
    assert_eq!(post(program.http, "/v1/metrics", BINARY, "", body).await.status().as_u16(), 200);
    let (output, errors, status) = program.end();
    assert!(status.success(), "{errors}");
    assert!(["odd.0", "odd.1", "odd.2", "odd.3"].iter().all(|name| output.contains(name)), "{output}");
    assert!(errors.contains("2 measurements dropped"), "{errors}");
}

/// Valid requests with bytes changed, cut and repeated, on both ports and over both protocols.
#[tokio::test(flavor = "multi_thread")]
async fn random_requests_do_no_harm() {
    let program = Program::start(&["--quiet", "10ms", "--wait", "20ms"]);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bodies = everywhere("text");
    let json = serde_json::to_vec(&traces("shop", vec![span(1, 0, "work")])).unwrap();
    for round in 0..600 {
        let (path, body) = random.choice(&bodies).unwrap();
        let (kind, body) = if random.bool() { (JSON, &json) } else { (BINARY, body) };
        let mut body = body.clone();
        for _ in 0..random.usize(1..8) {
            let place = random.usize(..body.len());
            match random.u8(..4) {
                0 => body[place] = random.u8(..),
                1 => body.truncate(place.max(1)),
                2 => body.extend_from_within(place..),
                _ => body[place] ^= 1 << random.u8(..8),
            }
        }
        let address = if random.bool() { program.grpc } else { program.http };
        if random.bool() {
            let answer = call(address, TRACES, &body).await;
            assert!(["0", "3"].contains(&grpc_status(&answer)), "round {round}: {answer:?}");
        } else {
            let encoding = if random.u8(..4) == 0 { "gzip" } else { "" };
            let answer = post(address, path, kind, encoding, body).await;
            assert!([200, 400].contains(&answer.status().as_u16()), "round {round}: {answer:?}");
        }
    }
    let (output, errors, status) = program.end();
    assert!(status.success() && !errors.contains("panicked"), "{errors}");
    assert!(!output.is_empty());
}

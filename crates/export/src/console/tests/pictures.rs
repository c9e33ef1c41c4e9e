use opentelemetry::baggage::BaggageExt;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_sdk::logs::SdkLogger;

use super::super::ColorChoice;
use super::{Paper, at, draft, quiet_console, telemetry, tracer};
use crate::telemetry::Telemetry;

/// The order of the tour: three services, a custom span, a failure, and a batch linked from two traces.
fn order(telemetry: &Telemetry) -> Vec<Context> {
    let [shop, stock, billing] = [
        tracer(&telemetry.tracer_provider()),
        tracer(&telemetry.service("stock").tracer_provider()),
        tracer(&telemetry.service("billing").tracer_provider()),
    ];
    let tenant = Context::new().with_baggage([KeyValue::new("tenant", "acme")]);
    let publish = draft("publish orders.placed", 0, 1_200).done(&shop, &tenant);
    let process = draft("process orders.placed", 2_000, 20_300)
        .attribute(KeyValue::new("messaging.system", "memory"))
        .links(&[&publish])
        .start(&stock, &publish);
    draft("reserve", 3_000, 15_000).attribute(KeyValue::new("items", 3)).done(&stock, &process);
    let north = process.with_baggage([KeyValue::new("tenant", "acme"), KeyValue::new("warehouse", "north")]);
    draft("publish stock.reserved", 16_000, 17_100).done(&stock, &north);
    process.span().end_with_timestamp(at(20_300));
    draft("process stock.reserved", 21_000, 41_800)
        .attribute(KeyValue::new("error.type", "PaymentDeclined"))
        .fails("card 4711 was declined")
        .done(&shop, &publish);
    let other = draft("publish orders.placed", 30_000, 30_900).done(&shop, &Context::new());
    let batch = draft("process orders.placed", 50_000, 59_000)
        .attribute(KeyValue::new("messaging.batch.message_count", 2))
        .links(&[&publish, &other])
        .done(&billing, &Context::new());
    vec![publish, other, batch]
}

async fn drawn(width: usize) -> String {
    let (telemetry, paper) = telemetry(width);
    let contexts = order(&telemetry);
    telemetry.shutdown().await.unwrap();
    paper.picture(&contexts.iter().collect::<Vec<_>>())
}

#[tokio::test]
async fn a_trace_over_three_services_is_one_picture() {
    assert_eq!(drawn(120).await, include_str!("order-120.txt"));
}

#[tokio::test]
async fn a_narrow_terminal_gets_narrow_pictures() {
    let picture = drawn(80).await;
    assert_eq!(picture, include_str!("order-80.txt"));
    for width in [40, 41, 60, 80, 100, 200] {
        for line in drawn(width).await.lines() {
            assert!(line.chars().count() <= width, "wider than {width}: {line}");
        }
    }
}

#[tokio::test]
async fn colours_are_per_service_and_red_for_errors() {
    let paper = Paper::default();
    let telemetry = quiet_console(paper.clone()).color(ColorChoice::Always).width(80).build_in(&|_| None).unwrap();
    let shop = tracer(&telemetry.tracer_provider());
    let root = draft("publish", 0, 1_000).done(&shop, &Context::new());
    draft("process", 0, 1_000).fails("no").done(&tracer(&telemetry.service("stock").tracer_provider()), &root);
    telemetry.shutdown().await.unwrap();

    let picture = paper.picture(&[&root]);
    let lines: Vec<&str> = picture.lines().collect();
    assert!(lines[0].starts_with("\x1b[1mtrace trace-01\x1b[0m  2 spans  2 services  1.0 ms  \x1b[31m1 error\x1b[0m"));
    assert!(lines[1].starts_with("\x1b[36mshop\x1b[0m  publish"), "{:?}", lines[1]);
    assert!(lines[1].ends_with("\x1b[36m████████████████████████\x1b[0m"));
    assert!(lines[2].starts_with("\x1b[33mstock\x1b[0m \x1b[2m└─ \x1b[0m\x1b[31mprocess\x1b[0m"), "{:?}", lines[2]);
    assert!(lines[2].ends_with("\x1b[31m████████████████████████\x1b[0m"));
    assert!(lines[3].ends_with("\x1b[31m✗ no\x1b[0m"), "{:?}", lines[3]);
}

#[tokio::test]
async fn a_parent_that_is_elsewhere_is_hinted_at() {
    let (telemetry, paper) = telemetry(80);
    let remote = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, Default::default());
    let parent = Context::new().with_remote_span_context(remote);
    let shop = tracer(&telemetry.tracer_provider());
    let first = draft("process a", 0, 1_000).done(&shop, &parent);
    draft("process b", 1_000, 2_000).done(&shop, &parent);
    draft("publish", 0, 500).done(&shop, &first);
    telemetry.flush().await.unwrap();

    assert_eq!(
        paper.picture(&[&first]),
        "\
trace trace-01  3 spans  1 service  2.0 ms              0 ms        1
shop ┄ process a                                1.0 ms  ████████████
shop └─ publish                                 500 µs  ██████
shop ┄ process b                                1.0 ms              ████████████

"
    );
}

#[tokio::test]
async fn the_shortest_span_has_a_bar() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let root = draft("root", 0, 1_000_000).done(&shop, &Context::new());
    draft("first", 0, 0).done(&shop, &root);
    draft("last", 1_000_000, 1_000_000).done(&shop, &root);
    telemetry.flush().await.unwrap();

    let text = paper.text();
    let bars: Vec<&str> = text.lines().skip(2).take(2).map(|line| line.split("0 µs  ").last().unwrap()).collect();
    assert_eq!(bars, ["█".to_owned(), format!("{}█", " ".repeat(23))]);
}

#[tokio::test]
async fn spans_that_start_together_keep_the_order_of_their_start() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let root = draft("root", 0, 10).start(&shop, &Context::new());
    let open: Vec<Context> =
        ["a", "b", "c", "d"].map(|name| draft(name, 0, 10).start(&shop, &root)).into_iter().collect();
    for context in open.iter().rev().chain([&root]) {
        context.span().end_with_timestamp(at(10));
    }
    telemetry.flush().await.unwrap();

    let text = paper.text();
    let names: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(names, ["10", "a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_trace_comes_after_those_it_is_linked_from() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let late = draft("late", 500, 600).done(&shop, &Context::new());
    let early = draft("early", 0, 100).links(&[&late]).done(&shop, &Context::new());
    telemetry.flush().await.unwrap();

    let picture = paper.picture(&[&late, &early]);
    let headers: Vec<&str> = picture.lines().filter(|line| line.contains("trace-0")).map(|line| &line[..14]).collect();
    assert_eq!(headers, ["trace trace-01", "trace trace-02", "linked from tr"]);
}

#[tokio::test]
async fn a_later_part_of_a_drawn_trace_is_marked() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let first = draft("publish", 0, 100).done(&shop, &Context::new());
    telemetry.flush().await.unwrap();
    draft("process", 200, 300).done(&shop, &first);
    telemetry.flush().await.unwrap();

    let picture = paper.picture(&[&first]);
    assert!(picture.contains("trace trace-01  1 span  1 service"));
    assert!(picture.contains("trace trace-01 (continued)  1 span  1 service"));
}

#[tokio::test]
async fn an_open_span_waits_for_its_end() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let open = draft("process", 0, 100).start(&shop, &Context::new());
    telemetry.flush().await.unwrap();
    assert_eq!(paper.text(), "");
    open.span().end_with_timestamp(at(100));
    telemetry.flush().await.unwrap();
    assert!(paper.text().contains("process"));
}

fn emit(logger: &SdkLogger, name: &'static str, body: &'static str, exception: Option<&'static str>) {
    let mut record = logger.create_log_record();
    record.set_event_name(name);
    record.set_severity_number(Severity::Warn);
    record.set_body(AnyValue::from(body));
    if let Some(exception) = exception {
        record.add_attribute("exception.type", exception);
    }
    logger.emit(record);
}

#[tokio::test]
async fn log_records_stand_under_their_span() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let logger = telemetry.logger_provider().logger("test");
    let root = draft("process", 0, 1_000).fails("out of stock").start(&shop, &Context::new());
    {
        let _current = root.clone().attach();
        emit(&logger, "stock.low", "3 left", None);
        emit(&logger, "exception", "", Some("OutOfStock"));
    }
    root.span().end_with_timestamp(at(1_000));
    emit(&logger, "started", "no span here", None);
    telemetry.flush().await.unwrap();

    assert_eq!(
        paper.picture(&[&root]),
        "\
WARN started no span here
trace trace-01  1 span  1 service  1.0 ms  1 error      0 ms        0.5
shop process                                    1.0 ms  ████████████████████████
       ✗ out of stock
       · WARN stock.low 3 left

"
    );
}

#[tokio::test]
async fn text_from_messages_cannot_steer_the_terminal() {
    let (telemetry, paper) = telemetry(100);
    let shop = tracer(&telemetry.tracer_provider());
    let parent = Context::new().with_baggage([KeyValue::new("tenant", "\x1b[2Jevil\n")]);
    draft("process \x1b[31mred", 0, 10)
        .attribute(KeyValue::new("who", "a\nb\u{202e}c"))
        .fails("bell \x07 rings")
        .done(&shop, &parent);
    telemetry.flush().await.unwrap();

    let text = paper.text();
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}'));
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[tokio::test]
async fn what_does_not_fit_goes_below_or_is_counted() {
    let (telemetry, paper) = telemetry(60);
    let shop = tracer(&telemetry.tracer_provider());
    let linked: Vec<Context> = (0..8).map(|at| draft("publish", at, at + 1).done(&shop, &Context::new())).collect();
    telemetry.flush().await.unwrap();
    let before = paper.text().len();
    let batch = draft("process a.destination.with.a.very.long.name", 0, 3_000_000)
        .attribute(KeyValue::new("order.id", 42))
        .attribute(KeyValue::new("throughline.attempt", 2))
        .links(&linked.iter().collect::<Vec<_>>())
        .done(&shop, &Context::new().with_baggage([KeyValue::new("tenant", "x".repeat(80))]));
    telemetry.flush().await.unwrap();

    let traces: Vec<&Context> = linked.iter().chain([&batch]).collect();
    assert_eq!(
        paper.picture(&traces)[before..],
        format!(
            "\
trace trace-09  1 span  1 service  3.00 s
linked from trace-01, trace-02, trace-03 and 5 more
shop process a.destination.wi…    3.00 s  ██████████████████
       order.id=42 attempt=2
baggage tenant={}…

",
            "x".repeat(44)
        )
    );
}

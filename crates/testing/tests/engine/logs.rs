//! What a service says at night: a line for each failure, with what happens next, and never what is in a message.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::logs::AnyValue;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use throughline_core::extract::{Batch, Json, Rejection};
use throughline_core::middleware::{Retry, TelemetryMiddleware};
use throughline_core::serve::Running;
use throughline_core::{App, CurrentBaggage, Delivery, Envelope, Handler, RetryPolicy, Settlement, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::Capture;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{Line, Log, TRACEPARENT};

const AGAIN: &str = "an attempt failed; the message is tried again";
const TO_DEAD_LETTER: &str = "an attempt failed; the message goes to the dead letter";
const REJECTED: &str = "an attempt failed; the message is rejected, and there is no dead letter";
const BY_DECISION: &str = "a message is rejected by decision, and there is no dead letter";
const LEFT_OUT: &str = "lines that say the same were left out";

#[derive(Debug)]
struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the order cannot be packed")
    }
}

impl Error for OutOfStock {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&fmt::Error)
    }
}

const CAUSES: &str = "error=\"the order cannot be packed: an error occurred when formatting an argument\"";

async fn fail(_order: String) -> Result<(), OutOfStock> {
    Err(OutOfStock)
}

async fn panics(_: Delivery) {
    panic!("on purpose")
}

fn orders() -> Channel {
    Channel::new("orders").group("stock")
}

/// Serves an app on a broker of its own and publishes messages to it.
async fn run(app: App, messages: impl IntoIterator<Item = &'static str> + Send) -> (Memory, Running) {
    let memory = Memory::recording();
    let running = serve(memory.clone(), app).start().await.unwrap();
    for message in messages {
        memory.publisher().without_telemetry().publish("orders", message).await.unwrap();
    }
    (memory, running)
}

/// Waits, in virtual time, until there are so many lines with this message.
async fn lines(log: &Log, message: &str, count: usize) -> Vec<Line> {
    for _ in 0..100_000 {
        let found = log.with(message);
        if found.len() >= count {
            assert_eq!(found.len(), count, "{found:?}");
            return found;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not {count} lines with {message:?}: {:#?}", log.lines());
}

fn field(line: &Line, name: &str) -> u64 {
    let value = line.text.split(&format!("{name}=")).nth(1).unwrap();
    value.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_failed_attempt_says_where_how_often_why_and_what_happens_next() {
    let log = Log::listen();
    let (_memory, _running) = run(App::new().subscribe(orders(), fail.dead_letter("dead")), ["a"]).await;
    let given_up = lines(&log, TO_DEAD_LETTER, 1).await;
    let error_type = "error_type=\"engine::logs::OutOfStock\"";
    given_up[0].has(&["destination=\"orders\"", "group=\"stock\"", "attempt=10", "attempts=10", "place=\"dead\""]);
    given_up[0].has(&[error_type, CAUSES]);
    // Nine of them within seconds: some are left out, and counted.
    let again = log.with(AGAIN);
    assert_eq!(again[0].level, Level::WARN);
    again[0].has(&[
        "destination=\"orders\"",
        "group=\"stock\"",
        "attempt=1 ",
        "attempts=10",
        "delay=",
        error_type,
        CAUSES,
    ]);
    sleep(Duration::from_secs(20)).await;
    let left_out: u64 = log.with(LEFT_OUT).iter().map(|line| field(line, "left_out")).sum();
    assert_eq!(log.with(AGAIN).len() as u64 + left_out, 9);
    assert!(log.errors().is_empty(), "{:?}", log.errors());
}

#[tokio::test(start_paused = true)]
async fn attempts_in_place_are_said_and_counted_as_those_of_the_retry() {
    let log = Log::listen();
    let retry = Retry::new(RetryPolicy::new().attempts(3));
    let (_memory, _running) = run(App::new().subscribe(orders(), fail.middleware(retry)), ["a"]).await;
    let rejected = lines(&log, REJECTED, 1).await;
    rejected[0].has(&["attempt=3 ", "attempts=3 ", "group=\"stock\"", CAUSES]);
    assert_eq!(rejected[0].level, Level::ERROR);
    let again = log.with(AGAIN);
    assert_eq!(again.len(), 2);
    again[0].has(&["attempt=1 ", "attempts=3 ", "delay="]);
    again[1].has(&["attempt=2 ", "attempts=3 ", "delay="]);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_batch_that_fails_alone_is_said_alone() {
    let log = Log::listen();
    let handle = async |batch: Batch<String>| {
        for message in batch {
            let settlement = if message.body() == "b" { Err(OutOfStock) } else { Ok(()) };
            message.run(async |_| settlement).await;
        }
    };
    let subscription = orders().batch(3, Duration::from_millis(50));
    let retry = Retry::new(RetryPolicy::new().attempts(2));
    let app = App::new().subscribe(subscription, handle.middleware(retry).dead_letter("dead"));
    let (_memory, _running) = run(app, ["a", "b", "c"]).await;
    let again = lines(&log, AGAIN, 1).await;
    again[0].has(&["attempt=1 ", CAUSES]);
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_by_decision_is_an_error_where_it_is_lost() {
    let log = Log::listen();
    let reject = async |_order: String| Settlement::reject("unknown tenant");
    let app = App::new().subscribe(orders(), reject.dead_letter("dead")).subscribe(Channel::new("dead"), reject);
    let (_memory, _running) = run(app, ["a"]).await;
    let lost = lines(&log, BY_DECISION, 1).await;
    lost[0].has(&["destination=\"dead\"", "reason=\"unknown tenant\""]);
    assert_eq!(lost[0].level, Level::ERROR);
}

/// Texts of users are private where they say so; where and how a body is wrong never is.
#[tokio::test(start_paused = true)]
async fn texts_can_be_switched_off_and_of_a_body_only_position_and_kind_are_said() {
    for on in [true, false] {
        let log = Log::listen();
        let amount = async |Json(_): Json<u8>| ();
        let app = App::new().subscribe(orders(), amount).subscribe(Channel::new("words"), fail);
        let (memory, _running) = run(app.error_texts_in_logs(on), ["\"secret text\""]).await;
        let line = &lines(&log, REJECTED, 1).await[0];
        line.has(&["error_type=\"decode_error\"", "data error at line 1 column 13"]);
        assert!(!line.text.contains("secret"), "{line:?}");
        memory.publisher().without_telemetry().publish("words", "x").await.unwrap();
        let line = &log_once(&log, AGAIN).await;
        assert_eq!(line.text.contains("cannot be packed"), on, "{line:?}");
        line.has(&["error_type=\"engine::logs::OutOfStock\""]);
    }
}

async fn log_once(log: &Log, message: &str) -> Line {
    while log.with(message).is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    log.with(message)[0].clone()
}

/// The lines end with the storm, and a count is there although nothing comes after it.
#[tokio::test(start_paused = true)]
async fn a_storm_of_a_thousand_bad_bodies_is_a_handful_of_lines_with_the_right_count() {
    let log = Log::listen();
    let app = App::new().subscribe(orders(), async |Json(_): Json<u8>| ());
    let (_memory, _running) = run(app, std::iter::repeat_n("{}", 1_000)).await;
    let left_out = lines(&log, LEFT_OUT, 1).await;
    left_out[0].has(&["destination=\"orders\"", "group=\"stock\"", REJECTED]);
    assert_eq!(left_out[0].level, Level::ERROR);
    assert_eq!(log.with(REJECTED).len() as u64 + field(&left_out[0], "left_out"), 1_000);
    assert!(log.lines().len() <= 7, "{:#?}", log.lines());
}

/// The end does not wait for the count, and has it.
#[tokio::test(start_paused = true)]
async fn lines_that_were_left_out_are_counted_at_the_end() {
    let log = Log::listen();
    let app = App::new().subscribe(orders(), async |Json(_): Json<u8>| ());
    let (memory, running) = run(app, std::iter::repeat_n("{}", 20)).await;
    while memory.settled().len() < 20 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    running.shutdown().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(field(&log.with(LEFT_OUT)[0], "left_out"), 15);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(log.with(LEFT_OUT).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_app_says_what_it_starts_and_what_it_left() {
    let log = Log::listen();
    let (begun, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (begins, gate) = (Arc::clone(&begun), Arc::clone(&let_go));
    let wait = move |order: String| {
        begins.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&gate);
        async move {
            match &*order {
                "hangs" => pending().await,
                _ => gate.notified().await,
            }
        }
    };
    let app = App::new().subscribe(orders(), wait.concurrency(4)).subscribe(Channel::new("others"), fail);
    let (_memory, running) = run(app, ["a", "hangs", "b"]).await;
    let started = log.with("a subscription has started");
    assert_eq!(started.len(), 2);
    started[0].has(&["destination=\"orders\"", "group=\"stock\"", "concurrency=4"]);
    assert!(!started[1].text.contains("group"), "{started:?}");
    while begun.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    let ending = tokio::spawn(running.shutdown());
    log_once(&log, "the service ends: no more messages are taken, handlers finish").await;
    let_go.notify_waiters();
    ending.await.unwrap().unwrap();
    let ended = log.with("a subscription has ended");
    let of_orders = ended.iter().find(|line| line.text.contains("orders")).unwrap();
    of_orders.has(&["group=\"stock\"", "handled=2", "left=1"]);
    let dropped = log.with("the app ended before messages were handled; the broker delivers them again");
    dropped[0].has(&["messages=1", "destination=\"orders\""]);
    assert_eq!(log.with("the service has ended").len(), 1);
}

/// A bridge puts the ids of the current span on a line: that of the message, whatever telemetry stands where.
#[tokio::test(start_paused = true)]
async fn a_line_about_a_message_is_in_its_trace() {
    for is_inner in [false, true] {
        let capture = Capture::new();
        let bridge = OpenTelemetryTracingBridge::new(&capture.logger_provider());
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(bridge));
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let retry = Retry::new(RetryPolicy::new().attempts(2));
        let app = App::new().subscribe(orders(), fail.middleware(retry));
        let engine = capture.instrumentation().build();
        let app = match is_inner {
            true => app.without_telemetry().middleware(TelemetryMiddleware::from(engine)),
            false => app.telemetry(engine),
        };
        let (_memory, running) = run(app, ["a"]).await;
        let said =
            |text: &str| capture.logs().into_iter().find(|line| line.body == Some(AnyValue::from(text.to_owned())));
        while said(REJECTED).is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        running.shutdown().await.unwrap();
        let spans = capture.spans();
        let process = spans.iter().find(|span| span.name == "process orders").unwrap();
        for text in [AGAIN, REJECTED] {
            let line = said(text).unwrap();
            assert_eq!(line.trace_id, Some(process.span_context.trace_id()), "{text} {is_inner}");
            assert_eq!(line.span_id, Some(process.span_context.span_id()), "{text} {is_inner}");
        }
    }
}

/// Secrets in the body, in headers and in baggage of messages that fail in every way: none of them is in any line.
#[tokio::test(start_paused = true)]
async fn nothing_of_a_message_is_in_a_line() {
    let log = Log::listen();
    let capture = Capture::new();
    let echo = async |delivery: Delivery| {
        delivery.baggage().set("own", "secret");
        Envelope::new("nowhere", delivery.payload().clone())
    };
    let app = App::new()
        .subscribe(Channel::new("json"), async |Json(_): Json<u8>| ())
        .subscribe(Channel::new("fails"), fail.dead_letter("dead"))
        .subscribe(Channel::new("dead"), async |_: Delivery| Settlement::retry())
        .subscribe(Channel::new("panics"), panics)
        .subscribe(Channel::new("echo"), echo)
        .subscribe(Channel::new("text"), async |_: String| Err::<(), _>(Rejection::malformed("no tenant")))
        .telemetry(capture.instrumentation().build());
    let (memory, running) = run(app, []).await;
    let publisher = memory.publisher().without_telemetry();
    for destination in ["json", "fails", "panics", "echo", "text"] {
        for body in [&b"\"secret\""[..], b"{\"secret\":\"secret\"}", b"secret\xff"] {
            let message = Envelope::new(destination, body)
                .with_header("traceparent", TRACEPARENT)
                .with_header("authorization", "secret")
                .with_header("bad", &b"secret\xff"[..])
                .with_header("baggage", "key=secret,secret=key,=secret")
                .with_header("tracestate", "secret=secret")
                .with_key("secret");
            publisher.publish_envelope(message).await.unwrap();
        }
    }
    sleep(Duration::from_secs(120)).await;
    running.shutdown().await.unwrap();
    let lines = log.lines();
    assert!(lines.len() > 20, "{lines:#?}");
    let leaks: Vec<_> = lines.iter().filter(|line| line.text.contains("secret")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

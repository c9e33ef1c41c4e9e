//! What the tests share.

use std::sync::{Arc, Mutex};

use opentelemetry_sdk::trace::SpanData;
use throughline_core::{Delivery, Envelope, Publisher};
use throughline_testing::{AppTest, Capture, MetricPoint};
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

/// What a producer of another service wrote.
pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const SPAN: &str = "00f067aa0ba902b7";

/// Publishes what a service with other instrumentation, or none, would: no header but those given.
pub(crate) fn untraced(test: &AppTest) -> Publisher {
    test.broker().publisher().without_telemetry()
}

/// Publishes a message of the remote producer.
pub(crate) async fn publish_remote(test: &AppTest, destination: &'static str, baggage: &'static str) {
    let message = Envelope::new(destination, "42").with_header("traceparent", TRACEPARENT);
    let message = if baggage.is_empty() { message } else { message.with_header("baggage", baggage) };
    untraced(test).publish_envelope(message).await.unwrap();
}

/// The trace id and the span id in a message's `traceparent`.
pub(crate) fn traceparent(delivery: &Delivery) -> (String, String) {
    let text = delivery.headers().get("traceparent").unwrap_or_else(|| panic!("no traceparent in {delivery:?}"));
    let parts: Vec<&str> = text.split('-').collect();
    (parts[1].to_owned(), parts[2].to_owned())
}

/// The ids of a span, as they stand in a `traceparent`.
pub(crate) fn ids(span: &SpanData) -> (String, String) {
    (span.span_context.trace_id().to_string(), span.span_context.span_id().to_string())
}

pub(crate) fn links(span: &SpanData) -> Vec<(String, String)> {
    let contexts = span.links.iter().map(|link| &link.span_context);
    contexts.map(|context| (context.trace_id().to_string(), context.span_id().to_string())).collect()
}

/// The time series of a metric whose attributes include these.
pub(crate) fn points(capture: &Capture, name: &str, with: &[(&str, &str)]) -> Vec<MetricPoint> {
    let mut points = capture.metrics();
    points.retain(|point| {
        let has =
            |(key, value): &(&str, &str)| point.attributes.get(*key).is_some_and(|found| found.as_str() == *value);
        point.name == name && with.iter().all(has)
    });
    points
}

/// The only time series of a metric whose attributes include these.
#[track_caller]
pub(crate) fn point(capture: &Capture, name: &str, with: &[(&str, &str)]) -> MetricPoint {
    match points(capture, name, with).as_slice() {
        [point] => point.clone(),
        found => panic!("{} time series of {name} have {with:?}: {found:?}", found.len()),
    }
}

/// Collects what handlers saw.
#[derive(Debug)]
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Seen<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The only value.
    #[track_caller]
    pub(crate) fn one(&self) -> T {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "handlers saw {} values", all.len());
        all.remove(0)
    }
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What is logged on this thread under the targets of the project, until it is dropped.
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    _guard: tracing::subscriber::DefaultGuard,
    /// With one dispatcher alone, a thread of another test may switch an event off for all.
    _second: tracing::Dispatch,
}

impl Log {
    /// Begins to listen. A runtime of one thread runs everything there.
    pub(crate) fn listen() -> Self {
        let lines = Arc::default();
        let subscriber = || tracing_subscriber::registry().with(Listener(Arc::clone(&lines)));
        let second = tracing::Dispatch::new(tracing_subscriber::registry().with(Listener(Arc::default())));
        Self { _guard: tracing::subscriber::set_default(subscriber()), _second: second, lines }
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.of(Level::ERROR)
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.of(Level::WARN)
    }

    fn of(&self, level: Level) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.level == level).map(|line| line.text).collect()
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    /// The lines with this message.
    pub(crate) fn with(&self, message: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.text.contains(&format!("message={message} "))).collect()
    }
}

/// One line: its fields as `name=value`, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
}

impl Line {
    #[track_caller]
    pub(crate) fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text.contains(part), "{part} is not in {self:?}");
        }
    }
}

struct Listener(Arc<Mutex<Vec<Line>>>);

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target().starts_with("throughline") {
            let mut line = Line { level: *event.metadata().level(), text: String::new() };
            event.record(&mut line);
            self.0.lock().unwrap().push(line);
        }
    }
}

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.text.push_str(&format!("{field}={value:?} "));
    }
}

//! The text is the behaviour, so whole pictures are compared; times are given, trace ids are replaced by names.

mod pictures;
mod pipeline;
mod summaries;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::{ColorChoice, Console, console};
use crate::Setup;
use crate::telemetry::Telemetry;

/// A writer whose clones share what was written.
#[derive(Clone, Debug, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// What was written, with the short ids of these traces replaced by `trace-1`, `trace-2` …, of the same length
    /// plus one less, so that columns stay where they are.
    fn picture(&self, traces: &[&Context]) -> String {
        let mut text = self.text();
        for (place, context) in traces.iter().enumerate() {
            let id = context.span().span_context().trace_id().to_string();
            text = text.replace(&id[..8], &format!("trace-0{}", place + 1));
        }
        text
    }
}

/// Telemetry that reads no variable, draws nothing by itself and writes on paper.
fn telemetry(width: usize) -> (Telemetry, Paper) {
    let paper = Paper::default();
    let console = quiet_console(paper.clone()).width(width);
    (console.build_in(&|_| None).unwrap(), paper)
}

fn quiet_console(paper: Paper) -> Setup<Console> {
    console().service_name("shop").color(ColorChoice::Never).quiet(Duration::from_secs(3600)).writer(paper)
}

fn at(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("test")
}

/// A span to be finished, in microseconds from the start of the test.
struct Draft {
    name: &'static str,
    from: u64,
    to: u64,
    links: Vec<Link>,
    attributes: Vec<KeyValue>,
    status: Status,
}

fn draft(name: &'static str, from: u64, to: u64) -> Draft {
    Draft { name, from, to, links: Vec::new(), attributes: Vec::new(), status: Status::Unset }
}

impl Draft {
    fn links(mut self, to: &[&Context]) -> Self {
        self.links = to.iter().map(|context| Link::with_context(context.span().span_context().clone())).collect();
        self
    }

    fn attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    fn fails(mut self, description: &'static str) -> Self {
        self.status = Status::error(description);
        self
    }

    /// Starts the span and leaves it open.
    fn start(self, tracer: &SdkTracer, parent: &Context) -> Context {
        let builder = tracer.span_builder(self.name).with_kind(SpanKind::Internal).with_start_time(at(self.from));
        let span = builder.with_links(self.links).with_attributes(self.attributes).start_with_context(tracer, parent);
        let context = parent.with_span(span);
        context.span().set_status(self.status);
        context
    }

    /// Starts and ends the span.
    fn done(self, tracer: &SdkTracer, parent: &Context) -> Context {
        let to = at(self.to);
        let context = self.start(tracer, parent);
        context.span().end_with_timestamp(to);
        context
    }
}

//! The baseline is no straw man: by hand and through both doors, the same spans are exported.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use throughline_benches::hand::{Effort, Hand};
use throughline_benches::load::{Door, Load, Shape, State};
use throughline_benches::ours::{Framework, Raw};
use throughline_benches::pipeline::Pipeline;
use throughline_benches::side::Side;

#[derive(Clone, Debug, Default)]
struct Collecting(Arc<Mutex<Vec<SpanData>>>);

impl Collecting {
    fn spans(&self) -> MutexGuard<'_, Vec<SpanData>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanExporter for Collecting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.spans().extend(batch);
        Ok(())
    }
}

/// Runs one unit of a load and returns its spans, each as one line.
fn spans(start: impl FnOnce(Pipeline) -> Box<dyn Side>, load: Load) -> Vec<String> {
    let exporter = Collecting::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let mut side = start(Pipeline { tracer: Some(provider), meter: None });
    side.run(load.unit());
    drop(side);
    let spans = exporter.spans();
    let mut lines: Vec<String> = spans.iter().map(|span| line(span, &spans)).collect();
    lines.sort();
    lines
}

fn line(span: &SpanData, all: &[SpanData]) -> String {
    assert!(span.start_time <= span.end_time);
    let named = |id| {
        let found = all.iter().find(|other| other.span_context.span_id() == id);
        found.map_or_else(|| id.to_string(), |other| other.name.to_string())
    };
    let of_parent = all.iter().find(|other| other.span_context.span_id() == span.parent_span_id);
    assert!(of_parent.is_none_or(|parent| parent.span_context.trace_id() == span.span_context.trace_id()));
    let mut attributes: Vec<String> =
        span.attributes.iter().map(|attribute| format!("{}={}", attribute.key, attribute.value)).collect();
    attributes.sort();
    let links: Vec<String> = span.links.iter().map(|link| named(link.span_context.span_id())).collect();
    format!(
        "{} {:?} {:?} in {}, to {links:?}: {}",
        span.name,
        span.span_kind,
        span.status,
        named(span.parent_span_id),
        attributes.join(" ")
    )
}

#[test]
fn by_hand_and_by_both_doors_the_same_spans_are_exported() {
    let single = Load::single(State::Sampled);
    for load in
        [single, single.incoming(), single.baggage(10), single.shaped(Shape::Batch), single.shaped(Shape::Chain)]
    {
        let by_hand = spans(|pipeline| Box::new(Hand::on(pipeline, load, Door::Framework, Effort::Same)), load);
        let framework = spans(|pipeline| Box::new(Framework::on(pipeline, load)), load);
        let raw = spans(|pipeline| Box::new(Raw::on(pipeline, load)), load);
        assert_eq!(by_hand, framework, "{load}");
        assert_eq!(by_hand, raw, "{load}");
    }
}

#[test]
fn the_spans_by_hand_are_connected_and_have_eight_attributes() {
    let load = Load::single(State::Sampled);
    let lines = spans(|pipeline| Box::new(Hand::on(pipeline, load, Door::Raw, Effort::Same)), load);
    let [process, publish] = lines.as_slice() else { panic!("{lines:?}") };
    let starts = "process orders.placed Consumer Unset in publish orders.placed, to [\"publish orders.placed\"]: ";
    assert!(process.starts_with(starts), "{process}");
    assert!(publish.starts_with("publish orders.placed Producer Unset in 0000000000000000, to []: "), "{publish}");
    for line in [process, publish] {
        assert_eq!(line.matches('=').count(), 8, "{line}");
    }
}

#[test]
fn the_lean_baseline_has_the_same_spans_without_the_link() {
    let load = Load::single(State::Sampled);
    let same = spans(|pipeline| Box::new(Hand::on(pipeline, load, Door::Raw, Effort::Same)), load);
    let lean = spans(|pipeline| Box::new(Hand::on(pipeline, load, Door::Raw, Effort::Lean)), load);
    let without_link: Vec<String> = same.iter().map(|line| line.replace("[\"publish orders.placed\"]", "[]")).collect();
    assert_eq!(lean, without_link);
}

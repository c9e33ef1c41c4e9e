use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Link, SpanBuilder, SpanKind, SpanRef, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};

use super::instrumentation::Engine;
use super::scope::UserAttributes;
use super::semconv::ERROR_TYPE;
use super::settings::OperationInfo;
use crate::broker::{BrokerError, PublishError};
use crate::message::{Failure, OperationType};

/// Says how a failed operation is shown: on the span, in the metrics, and as an event.
#[derive(Clone, Debug)]
pub(crate) struct ErrorReport {
    pub(crate) error_type: Cow<'static, str>,
    pub(crate) exception_type: String,
    pub(crate) message: Option<String>,
    pub(crate) description: Option<String>,
}

impl ErrorReport {
    /// A failure of the framework or a broker: its text may stand in the status (STAT-03).
    fn of_framework(error_type: &str, message: String) -> Self {
        Self {
            error_type: error_type.to_owned().into(),
            exception_type: error_type.to_owned(),
            description: Some(message.clone()),
            message: Some(message),
        }
    }

    /// Marks a span as failed (STAT-02).
    pub(crate) fn mark(&self, span: &SpanRef<'_>) {
        span.set_attribute(KeyValue::new(ERROR_TYPE, self.error_type.clone()));
        span.set_status(Status::error(self.description.clone().unwrap_or_default()));
    }

    pub(crate) fn named(error_type: &'static str) -> Self {
        Self { error_type: error_type.into(), exception_type: error_type.to_owned(), message: None, description: None }
    }

    pub(crate) fn of_publish(error: &PublishError) -> Self {
        Self { error_type: error.error_type_owned(), ..Self::of_framework(error.error_type(), error.to_string()) }
    }

    pub(crate) fn of_broker(error: &BrokerError) -> Self {
        Self::of_framework(error.error_type(), error.to_string())
    }

    pub(crate) fn of_failure(failure: &Failure, engine: &Engine) -> Self {
        let settings = &engine.settings;
        let own = settings.error_type.as_ref().and_then(|classify| classify(failure.error()));
        let message = failure.to_string();
        let shown = failure.is_framework() || settings.error_descriptions;
        Self {
            error_type: own.unwrap_or_else(|| failure.error_type().to_owned().into()),
            exception_type: failure.error_type().to_owned(),
            description: shown.then(|| message.clone()),
            message: Some(message),
        }
    }
}

/// What a span starts with.
pub(crate) struct Start<'a> {
    pub(crate) info: OperationInfo<'a>,
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: Vec<KeyValue>,
    pub(crate) links: Vec<Link>,
    pub(crate) clock: Clock,
}

/// When an operation began, on both clocks: the span ends at start time plus elapsed, and the metric is the same elapsed (METR-11).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    start_time: SystemTime,
    ended: Option<Instant>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), start_time: SystemTime::now(), ended: None }
    }

    /// Sets when the operation ended, where that is before it is recorded.
    pub(crate) fn end_at(&mut self, ended: Instant) {
        self.ended = Some(ended);
    }

    fn elapsed(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.started)
    }
}

impl Engine {
    /// Starts a span under `parent` and returns the context that holds it; `None` when there is to be no span.
    pub(crate) fn start_span(&self, mut start: Start<'_>, parent: &Context) -> Option<Context> {
        if !self.has_sdk() || self.settings.filter.as_ref().is_some_and(|filter| !filter(&start.info)) {
            return None;
        }
        if let Some(hook) = &self.settings.attributes {
            hook(&start.info, &mut start.attributes);
        }
        let name = self.settings.span_name.as_ref().and_then(|hook| hook(&start.info)).unwrap_or(start.name);
        self.limit(&mut start.attributes);
        start.links.iter_mut().for_each(|link| self.limit(&mut link.attributes));
        let builder = SpanBuilder::from_name(name)
            .with_kind(start.kind)
            .with_start_time(start.clock.start_time)
            .with_attributes(start.attributes)
            .with_links(start.links);
        let context = self.tracer.start(builder, parent);
        self.note_sdk(&context, parent).then_some(context)
    }

    /// Takes out hidden attributes (ATTR-C-23) and cuts strings to the configured length; the SDK never does (ENV-10).
    fn limit(&self, attributes: &mut Vec<KeyValue>) {
        let hidden = &self.settings.hidden_attributes;
        if !hidden.is_empty() {
            attributes.retain(|attribute| !hidden.contains(&attribute.key.as_str()));
        }
        let limit = self.settings.max_value_length;
        for attribute in attributes {
            if let opentelemetry::Value::String(text) = &attribute.value {
                let text = text.as_str();
                if text.len() > limit && text.chars().count() > limit {
                    let cut: String = text.chars().take(limit).collect();
                    attribute.value = opentelemetry::Value::String(StringValue::from(cut));
                }
            }
        }
    }
}

/// An operation that is under way: it ends its span and records its duration once, also when it is dropped (TRAP-03, -04).
pub(crate) struct Operation {
    pub(crate) engine: Arc<Engine>,
    pub(crate) operation: OperationType,
    /// The context that holds the span, if there is one.
    pub(crate) span: Option<Context>,
    pub(crate) clock: Clock,
    pub(crate) metric_attributes: Arc<[KeyValue]>,
    /// What the handler set on the span.
    pub(crate) user_attributes: Option<UserAttributes>,
    /// Whether the operation is counted as in flight until it ends.
    pub(crate) in_flight: bool,
    pub(crate) finished: bool,
}

impl Operation {
    /// Ends the operation. Attributes that became known meanwhile are added first.
    pub(crate) fn finish(mut self, late: Vec<KeyValue>, error: Option<&ErrorReport>) {
        self.end(late, error);
    }

    fn end(&mut self, mut late: Vec<KeyValue>, error: Option<&ErrorReport>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let elapsed = self.clock.elapsed();
        if let Some(context) = &self.span {
            let span = context.span();
            late.extend(self.user_attributes.as_ref().map(UserAttributes::take).unwrap_or_default());
            self.engine.limit(&mut late);
            span.set_attributes(late);
            if let Some(error) = error {
                error.mark(&span);
            }
            span.end_with_timestamp(self.clock.start_time + elapsed);
        }
        if let (Some(error), Some(events)) = (error, &self.engine.events) {
            let span = self.span.as_ref().map(|context| context.span().span_context().clone());
            events.record(self.operation, error, &span.unwrap_or(opentelemetry::trace::SpanContext::NONE));
        }
        let error_type = error.map(|error| error.error_type.as_ref());
        self.engine.metrics.duration(self.operation, elapsed, &self.metric_attributes, error_type);
        if self.in_flight {
            self.engine.metrics.in_flight(-1, &self.metric_attributes);
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.finished {
            let error = ErrorReport::named(if std::thread::panicking() { "panic" } else { "cancelled" });
            self.end(Vec::new(), Some(&error));
        }
    }
}

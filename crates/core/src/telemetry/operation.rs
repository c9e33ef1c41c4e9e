use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanKind, SpanRef, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};

use super::attributes::once_each;
use super::instrumentation::Engine;
use super::prepared::Prepared;
use super::scope::Scope;
use super::semconv::{ERROR_TYPE, SETTLEMENT_REASON};
use super::settings::{AttributeHook, OperationInfo};
use super::span::Keys;
use super::tracer::{Build, Late};
use crate::broker::{BrokerError, PublishError};
use crate::guard::Foreign;
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
    fn of_framework(error_type: &str, error: &dyn fmt::Display, engine: &Engine) -> Self {
        let message = engine.text_of(error);
        Self {
            error_type: error_type.to_owned().into(),
            exception_type: error_type.to_owned(),
            description: message.clone(),
            message,
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

    pub(crate) fn of_publish(error: &PublishError, engine: &Engine) -> Self {
        Self { error_type: error.error_type_owned(), ..Self::of_framework(error.error_type(), error, engine) }
    }

    pub(crate) fn of_broker(error: &BrokerError, engine: &Engine) -> Self {
        Self::of_framework(error.error_type(), error, engine)
    }

    pub(crate) fn of_failure(failure: &Failure, engine: &Engine) -> Self {
        let settings = &engine.settings;
        let classify = settings.error_type.as_ref();
        let own =
            classify.and_then(|classify| engine.guard.run(Foreign::ErrorType, || classify(failure.error())).flatten());
        let message = engine.text_of(failure.error());
        let shown = failure.is_framework() || settings.error_descriptions;
        Self {
            error_type: own.unwrap_or_else(|| failure.error_type().to_owned().into()),
            exception_type: failure.error_type().to_owned(),
            description: message.clone().filter(|_| shown),
            message,
        }
    }
}

/// What a span starts with.
pub(crate) struct Start<'a> {
    pub(crate) info: OperationInfo<'a>,
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: Vec<KeyValue>,
    /// Those of the attributes.
    pub(crate) keys: Keys,
    pub(crate) links: Vec<Link>,
    pub(crate) clock: Clock,
}

/// A span that was started.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// The parent's context with the span in it.
    pub(crate) context: Context,
    pub(crate) is_recording: bool,
}

/// When an operation began. Where durations are measured it is read from both clocks: the span ends at start time plus elapsed, and the
/// metric is the same elapsed (METR-11). Where they are not, the SDK takes the times of its spans itself, and reads no clock for a span
/// that is not sampled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    started: Option<Instant>,
    start_time: Option<SystemTime>,
    ended: Option<Instant>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Some(Instant::now()), start_time: Some(SystemTime::now()), ended: None }
    }

    /// A clock of an operation that began earlier.
    pub(crate) fn started_at(started: Instant) -> Self {
        let start_time = SystemTime::now().checked_sub(started.elapsed());
        Self { started: Some(started), start_time, ended: None }
    }

    /// Sets when the operation ended, where that is before it is recorded.
    pub(crate) fn end_at(&mut self, ended: Instant) {
        self.ended = Some(ended);
    }

    /// The time of day when the operation began, if it was read.
    pub(crate) const fn start_time(&self) -> Option<SystemTime> {
        self.start_time
    }

    /// How long the operation has taken, if that is measured.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.started.map(|started| started.elapsed())
    }

    /// A clock that starts where this operation ended.
    const fn followed_by(ended: Option<Instant>, end_time: Option<SystemTime>) -> Self {
        Self { started: ended, start_time: end_time, ended: None }
    }
}

impl Engine {
    /// The text of an error, which may be the user's own code.
    pub(crate) fn text_of(&self, error: &(impl fmt::Display + ?Sized)) -> Option<String> {
        self.guard.run(Foreign::ErrorText, || error.to_string())
    }

    /// Starts a clock where something is measured by it.
    pub(crate) fn clock(&self) -> Clock {
        if self.metrics.is_enabled() { Clock::start() } else { Clock::default() }
    }

    /// Starts a span under `parent`; `None` when there is to be no span, and when there is none after all.
    #[inline]
    pub(crate) fn start_span(
        self: &Arc<Self>,
        start: Start<'_>,
        late: &mut Late<'_>,
        parent: &Context,
    ) -> Option<Started> {
        let (build, late_is_in) = self.build(start, late)?;
        let started = self.tracer.start(self, build, parent, &mut |set| self.set_late(late_is_in, late, set))?;
        self.is_real(started.context.span().span_context(), parent).then_some(started)
    }

    /// Starts a span and ends it at once, as [`start_span`](Self::start_span). Returns its context and how long it took, where that is measured.
    pub(crate) fn make_span(
        self: &Arc<Self>,
        start: Start<'_>,
        late: &mut Late<'_>,
        parent: &Context,
    ) -> Option<(SpanContext, Option<Duration>)> {
        let clock = start.clock;
        let (build, late_is_in) = self.build(start, late)?;
        let mut elapsed = None;
        let span =
            self.tracer.make(self, build, parent, &mut |set| self.set_late(late_is_in, late, set), &mut || {
                elapsed = clock.started.map(|started| started.elapsed());
                elapsed.zip(clock.start_time).map(|(elapsed, started)| started + elapsed)
            })?;
        self.is_real(&span, parent).then_some((span, elapsed))
    }

    /// Whether the late attributes are in the builder already is the second.
    #[inline]
    fn build(&self, mut start: Start<'_>, late: &mut Late<'_>) -> Option<(Build, bool)> {
        let settings = &self.settings;
        if !self.has_sdk() || !self.is_wanted(&start.info) {
            return None;
        }
        let mut deferred = Vec::new();
        if let Some(hook) = &settings.attributes {
            // The user's function sees all attributes, so that it can replace each.
            late(&mut |attribute| start.attributes.push(attribute));
            deferred = self.change_attributes(hook, &start.info, &mut start.attributes);
        }
        deferred.append(&mut take(&mut start.attributes, |key| matches!(key, ERROR_TYPE | SETTLEMENT_REASON)));
        if settings.attributes.is_some() || !deferred.is_empty() {
            start.keys = Keys::of(&start.attributes);
        }
        let name = settings.span_name.as_ref();
        let name = name.and_then(|hook| self.guard.run(Foreign::SpanName, || hook(&start.info)).flatten());
        for link in &mut start.links {
            once_each(&mut link.attributes, &[]);
            self.limit(&mut link.attributes);
        }
        let builder = SpanBuilder {
            name: name.unwrap_or(start.name),
            span_kind: Some(start.kind),
            attributes: Some(start.attributes),
            links: Some(start.links).filter(|links| !links.is_empty()),
            start_time: start.clock.start_time,
            ..SpanBuilder::default()
        };
        Some((Build { builder, keys: start.keys, deferred }, settings.attributes.is_some()))
    }

    /// Asks the user's filter; one that panics leaves nothing out.
    fn is_wanted(&self, info: &OperationInfo<'_>) -> bool {
        let filter = self.settings.filter.as_ref();
        filter.is_none_or(|filter| self.guard.run(Foreign::Filter, || filter(info)).unwrap_or(true))
    }

    /// Lets the user's function change the attributes. It works on a copy: one that panics has changed nothing. Returns what gives way to
    /// the broker's answer, which says it better.
    fn change_attributes(
        &self,
        hook: &AttributeHook,
        info: &OperationInfo<'_>,
        attributes: &mut Vec<KeyValue>,
    ) -> Vec<KeyValue> {
        let first = attributes.clone();
        once_each(attributes, &first);
        let mut changed = attributes.clone();
        let mut deferred = Vec::new();
        if self.guard.run(Foreign::Attributes, || hook(info, &mut changed)).is_some() {
            once_each(&mut changed, attributes);
            if info.operation_type == OperationType::Send {
                let is_own = |key: &str| attributes.iter().any(|own| own.key.as_str() == key);
                deferred = take(&mut changed, |key| key.starts_with("messaging.") && !is_own(key));
            }
            *attributes = changed;
        }
        self.limit(attributes);
        deferred
    }

    fn set_late(&self, late_is_in: bool, late: &mut Late<'_>, set: &mut dyn FnMut(KeyValue)) {
        if !late_is_in {
            late(&mut |attribute| self.limited(attribute).into_iter().for_each(&mut *set));
        }
    }

    /// Takes out hidden attributes (ATTR-C-23) and cuts strings to the configured length; the SDK never does (ENV-10).
    pub(crate) fn limit(&self, attributes: &mut Vec<KeyValue>) {
        if !self.settings.hidden_attributes.is_empty() {
            attributes.retain(|attribute| !self.is_hidden(attribute));
        }
        attributes.iter_mut().for_each(|attribute| self.cut(attribute));
    }

    pub(crate) fn push_limited(&self, attributes: &mut Vec<KeyValue>, attribute: KeyValue) {
        attributes.extend(self.limited(attribute));
    }

    pub(crate) fn limited(&self, mut attribute: KeyValue) -> Option<KeyValue> {
        self.cut(&mut attribute);
        Some(attribute).filter(|attribute| !self.is_hidden(attribute))
    }

    fn is_hidden(&self, attribute: &KeyValue) -> bool {
        self.settings.hidden_attributes.contains(&attribute.key.as_str())
    }

    fn cut(&self, attribute: &mut KeyValue) {
        let limit = self.settings.max_value_length;
        if let opentelemetry::Value::String(text) = &attribute.value {
            let text = text.as_str();
            if text.len() > limit && text.chars().count() > limit {
                let cut: String = text.chars().take(limit).collect();
                attribute.value = opentelemetry::Value::String(StringValue::from(cut));
            }
        }
    }
}

/// Takes the attributes out whose keys are wanted. Such give way to what the engine sets at the end: the SDK cannot replace what a span
/// starts with.
fn take(attributes: &mut Vec<KeyValue>, is_wanted: impl Fn(&str) -> bool) -> Vec<KeyValue> {
    if !attributes.iter().any(|attribute| is_wanted(attribute.key.as_str())) {
        return Vec::new();
    }
    let (taken, left) = std::mem::take(attributes).into_iter().partition(|attribute| is_wanted(attribute.key.as_str()));
    *attributes = left;
    taken
}

/// An operation that is under way: it ends its span and records its duration once, also when it is dropped (TRAP-03, -04).
pub(crate) struct Operation {
    pub(super) prepared: Arc<Prepared>,
    pub(super) span: Option<Started>,
    pub(super) clock: Clock,
    /// Holds what the handler sets on the span, once somebody asked for it.
    pub(super) scope: OnceLock<Scope>,
    /// Whether the operation is counted as in flight until it ends.
    pub(super) in_flight: bool,
    pub(super) finished: bool,
}

impl Operation {
    pub(crate) fn engine(&self) -> &Engine {
        &self.prepared.engine
    }

    pub(crate) fn context(&self) -> Option<&Context> {
        self.span.as_ref().map(|span| &span.context)
    }

    /// Ends the operation. Attributes that became known meanwhile are added first. Returns a clock that starts at the end.
    pub(crate) fn finish(mut self, late: Vec<KeyValue>, error: Option<&ErrorReport>) -> Clock {
        self.end(late, error)
    }

    fn end(&mut self, late: Vec<KeyValue>, error: Option<&ErrorReport>) -> Clock {
        if std::mem::replace(&mut self.finished, true) {
            return Clock::default();
        }
        let engine = &self.prepared.engine;
        let ended = self.clock.started.map(|_| self.clock.ended.unwrap_or_else(Instant::now));
        let elapsed = ended.zip(self.clock.started).map(|(ended, started)| ended.saturating_duration_since(started));
        let mut end_time = elapsed.zip(self.clock.start_time).map(|(elapsed, started)| started + elapsed);
        if let Some(span) = self.span.as_ref().filter(|span| span.is_recording) {
            let span = span.context.span();
            // After whatever the handler has set: the last one counts.
            if !late.is_empty() {
                span.set_attributes(late);
            }
            if let Some(error) = error {
                error.mark(&span);
            }
            span.end_with_timestamp(*end_time.get_or_insert_with(SystemTime::now));
        }
        if let (Some(error), Some(events)) = (error, &engine.events) {
            let span = self.context().map(|context| context.span().span_context().clone());
            let span = span.unwrap_or(SpanContext::NONE);
            engine.guard.run(Foreign::Logger, || events.record(self.prepared.operation, error, &span));
        }
        if engine.metrics.is_enabled() {
            let error_type = error.map(|error| error.error_type.as_ref());
            let durations = &self.prepared.durations;
            engine.metrics.duration(self.prepared.operation, elapsed.unwrap_or_default(), durations, error_type);
            if self.in_flight {
                engine.metrics.in_flight(-1, &self.prepared.counts);
            }
        }
        Clock::followed_by(ended, end_time)
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

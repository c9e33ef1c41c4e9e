//! The engine that all operations of one instrumentation share. Nothing in here knows of subscriptions or destinations.

mod clock;
mod error_report;
mod events;
mod metrics;
mod propagator;
mod settings;
mod span;
mod tracer;
mod until_set;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

pub(crate) use self::clock::Clock;
pub(crate) use self::error_report::ErrorReport;
pub(crate) use self::events::RecordException;
pub(crate) use self::metrics::{Metrics, with_operation_type, with_settlement};
pub(crate) use self::propagator::Propagator;
use self::settings::AttributeHook;
pub(crate) use self::settings::Settings;
pub(crate) use self::span::Keys;
use self::tracer::Build;
pub(crate) use self::tracer::{Late, StartSpan, Started};
use self::until_set::GlobalTracer;
use super::attributes::once_each;
use super::changes::{carries_nothing, outgoing_context};
use super::choices::OperationInfo;
use super::semconv::{ERROR_TYPE, REJECTION_REASON};
use crate::guard::{Foreign, Guard};
use crate::message::OperationType;
use crate::propagation::{self, Carrier, Remote};

/// What all operations of one instrumentation share.
pub(crate) struct Engine {
    tracer: UsedTracer,
    pub(crate) metrics: Metrics,
    pub(crate) events: Option<Box<dyn RecordException>>,
    pub(crate) propagator: Propagator,
    pub(crate) settings: Arc<Settings>,
    sdk: AtomicU8,
}

/// The tracer of the user's, or that of the global provider.
enum UsedTracer {
    Given(Box<dyn StartSpan>),
    Global(GlobalTracer),
}

impl UsedTracer {
    fn as_dyn(&self) -> &dyn StartSpan {
        match self {
            Self::Given(tracer) => &**tracer,
            Self::Global(tracer) => tracer,
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

/// Whether the tracer is the API's own, which never makes a span: the only thing about it that is remembered.
const SDK_UNKNOWN: u8 = 0;
const SDK_NONE: u8 = 1;
const SDK_SOME: u8 = 2;

impl Engine {
    /// Puts an engine together. Where no tracer is given, it is that of the global provider, from when one is set on.
    pub(super) fn new(
        tracer: Option<Box<dyn StartSpan>>,
        metrics: Metrics,
        events: Option<Box<dyn RecordException>>,
        propagator: Propagator,
        settings: Settings,
    ) -> Self {
        let is_noop = tracer.as_ref().map_or(Some(true), |tracer| tracer.is_known_noop());
        let sdk = AtomicU8::new(match is_noop {
            None => SDK_UNKNOWN,
            Some(true) => SDK_NONE,
            Some(false) => SDK_SOME,
        });
        let tracer = tracer.map_or_else(|| UsedTracer::Global(GlobalTracer::new()), UsedTracer::Given);
        let metrics = metrics.guarded(&settings.guard);
        Self { tracer, metrics, events, propagator, settings: Arc::new(settings), sdk }
    }

    /// The engine of a delivery that does not know its type.
    pub(super) fn from_any(engine: &Arc<dyn Any + Send + Sync>) -> Option<Arc<Self>> {
        Arc::clone(engine).downcast().ok()
    }

    /// What stands around code of others.
    pub(crate) fn guard(&self) -> &Guard {
        &self.settings.guard
    }

    /// Tells whether spans can be made at all: only the API's own tracer, which makes none, is left out of the work for one.
    #[inline]
    pub(crate) fn has_sdk(&self) -> bool {
        self.sdk.load(Ordering::Relaxed) != SDK_NONE || self.finds_sdk()
    }

    /// Looks whether the global provider is set by now.
    #[cold]
    fn finds_sdk(&self) -> bool {
        let UsedTracer::Global(tracer) = &self.tracer else { return false };
        let is_there = tracer.is_there(self.guard());
        if is_there {
            self.sdk.store(SDK_SOME, Ordering::Relaxed);
        }
        is_there
    }

    /// Tells whether anything is recorded at all: spans, metrics or events.
    pub(crate) fn is_recording(&self) -> bool {
        self.has_sdk() || self.metrics.is_enabled() || self.events.is_some()
    }

    /// Tells whether a span that was asked for is one. One that is invalid, as of a provider that was shut down, or that is its parent's,
    /// is none: the message goes on as without an SDK, and the next one is looked at afresh.
    // PROP-20.
    pub(crate) fn is_real(&self, span: &SpanContext, parent: &Context) -> bool {
        let is_real = span.is_valid() && span.span_id() != parent.span().span_context().span_id();
        if self.sdk.load(Ordering::Relaxed) == SDK_UNKNOWN {
            let is_noop =
                !is_real && self.guard().run(Foreign::SpanStart, || self.tracer.as_dyn().is_noop()).unwrap_or_default();
            self.sdk.store(if is_noop { SDK_NONE } else { SDK_SOME }, Ordering::Relaxed);
        }
        is_real
    }

    /// Reads the headers into a copy of `base`; `None` when they hold nothing.
    // PROP-08, PROP-16.
    pub(crate) fn extract(&self, base: &Context, headers: &dyn Extractor) -> Option<Context> {
        let extract = || match &self.propagator {
            Propagator::Own(propagators) => propagators.find(base, headers),
            Propagator::Other(propagator) => Some(propagator.extract_with_context(base, headers)),
        };
        self.guard().run(Foreign::Extract, extract).flatten()
    }

    /// Writes the context and the baggage that may leave into the headers of another call.
    // BAGG-15.
    pub(crate) fn inject_call(&self, context: &Context, injector: &mut dyn Injector) {
        let outgoing = outgoing_context(context, &self.settings.outbound_baggage);
        self.guard().run(Foreign::Inject, || self.propagator.as_dyn().inject_context(&outgoing, injector));
    }

    /// Reads the headers by themselves.
    // PROP-08, PROP-16.
    pub(crate) fn read(&self, headers: &dyn Extractor) -> Remote {
        let read = || match &self.propagator {
            Propagator::Own(propagators) => propagators.read(headers),
            Propagator::Other(propagator) => Remote::of(propagator.extract_with_context(&Context::new(), headers)),
        };
        self.guard().run(Foreign::Extract, read).unwrap_or_default()
    }

    /// Writes the context of a span and the baggage of a context into the headers of a message, as [`inject`](Self::inject).
    pub(crate) fn inject_span(&self, span: &SpanContext, context: &Context, carrier: &mut dyn Carrier) {
        let outgoing = outgoing_context(context, &self.settings.outbound_baggage);
        self.guard().run(Foreign::Inject, || match &self.propagator {
            Propagator::Own(propagators) => propagators.replace_with(span, &outgoing, carrier),
            Propagator::Other(propagator) => {
                propagation::inject(propagator.as_ref(), &outgoing.with_remote_span_context(span.clone()), carrier);
            }
        });
    }

    /// Writes the context and the baggage into the headers of a message, in place of whatever was there.
    // PROP-04, -05.
    pub(crate) fn inject(&self, context: &Context, carrier: &mut dyn Carrier) {
        self.guard().run(Foreign::Inject, || {
            if let Propagator::Own(propagators) = &self.propagator
                && carries_nothing(context)
            {
                return propagators.remove(carrier);
            }
            let outgoing = outgoing_context(context, &self.settings.outbound_baggage);
            match &self.propagator {
                Propagator::Own(propagators) => propagators.replace(&outgoing, carrier),
                Propagator::Other(propagator) => propagation::inject(propagator.as_ref(), &outgoing, carrier),
            }
        });
    }

    /// Starts a clock where something is measured by it.
    pub(crate) fn clock(&self) -> Clock {
        if self.metrics.is_enabled() { Clock::start() } else { Clock::default() }
    }

    /// Starts a span under `parent`; `None` when there is to be no span, and when there is none after all.
    #[inline]
    pub(crate) fn start_span(&self, start: Start<'_>, late: &mut Late<'_>, parent: &Context) -> Option<Started> {
        let (build, late_is_in) = self.build(start, late)?;
        let started = self
            .tracer
            .as_dyn()
            .start(&self.settings, build, parent, &mut |set| self.set_late(late_is_in, late, set))?;
        self.is_real(started.context.span().span_context(), parent).then_some(started)
    }

    /// Starts the span of a request that is no message, and returns its context; that of the parent where there is to be none.
    pub(crate) fn server_span(&self, name: Cow<'static, str>, links: Vec<Link>, parent: &Context) -> Context {
        if !self.has_sdk() {
            return parent.clone();
        }
        let builder = SpanBuilder {
            span_kind: Some(SpanKind::Server),
            links: Some(links).filter(|links| !links.is_empty()),
            ..SpanBuilder::from_name(name)
        };
        let build = Build { builder, keys: Keys::default(), deferred: Vec::new() };
        let started = self.tracer.as_dyn().start(&self.settings, build, parent, &mut |_| {});
        let started = started.filter(|started| self.is_real(started.context.span().span_context(), parent));
        started.map_or_else(|| parent.clone(), |started| started.context)
    }

    /// Starts a span and ends it at once, as [`start_span`](Self::start_span). Returns its context and how long it took, where that is
    /// measured.
    pub(crate) fn make_span(
        &self,
        start: Start<'_>,
        late: &mut Late<'_>,
        parent: &Context,
    ) -> Option<(SpanContext, Option<Duration>)> {
        let clock = start.clock;
        let (build, late_is_in) = self.build(start, late)?;
        let mut elapsed = None;
        let span = self.tracer.as_dyn().make(
            &self.settings,
            build,
            parent,
            &mut |set| self.set_late(late_is_in, late, set),
            &mut || {
                let end = clock.end();
                elapsed = end.elapsed;
                end.time
            },
        )?;
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
        deferred.append(&mut take(&mut start.attributes, |key| matches!(key, ERROR_TYPE | REJECTION_REASON)));
        if settings.attributes.is_some() || !deferred.is_empty() {
            start.keys = Keys::of(&start.attributes);
        }
        let name = settings.span_name.as_ref();
        let name = name.and_then(|hook| self.guard().run(Foreign::SpanName, || hook(&start.info)).flatten());
        for link in &mut start.links {
            once_each(&mut link.attributes, &[]);
            self.settings.limit(&mut link.attributes);
        }
        let builder = SpanBuilder {
            name: name.unwrap_or(start.name),
            span_kind: Some(start.kind),
            attributes: Some(start.attributes),
            links: Some(start.links).filter(|links| !links.is_empty()),
            start_time: start.clock.start_time(),
            ..SpanBuilder::default()
        };
        Some((Build { builder, keys: start.keys, deferred }, settings.attributes.is_some()))
    }

    /// Asks the user's filter; one that panics leaves nothing out.
    fn is_wanted(&self, info: &OperationInfo<'_>) -> bool {
        let filter = self.settings.filter.as_ref();
        filter.is_none_or(|filter| self.guard().run(Foreign::Filter, || filter(info)).unwrap_or(true))
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
        if self.guard().run(Foreign::Attributes, || hook(info, &mut changed)).is_some() {
            once_each(&mut changed, attributes);
            if info.operation_type == OperationType::Send {
                let is_own = |key: &str| attributes.iter().any(|own| own.key.as_str() == key);
                deferred = take(&mut changed, |key| key.starts_with("messaging.") && !is_own(key));
            }
            *attributes = changed;
        }
        self.settings.limit(attributes);
        deferred
    }

    fn set_late(&self, late_is_in: bool, late: &mut Late<'_>, set: &mut dyn FnMut(KeyValue)) {
        if !late_is_in {
            late(&mut |attribute| self.settings.limited(attribute).into_iter().for_each(&mut *set));
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

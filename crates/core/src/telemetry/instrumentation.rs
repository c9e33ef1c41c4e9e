use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, global};

use super::builder::Builder;
use super::consumer::Consumer;
use super::events::RecordException;
use super::metrics::Metrics;
use super::producer::Producer;
use super::scope;
use super::semconv::{SCHEMA_URL, SCOPE_NAME};
use super::settings::Settings;
use super::tracer::StartSpan;
use crate::guard::{Foreign, Guard};
use crate::message::{Source, System};
use crate::propagation::{self, Carrier, Propagators, Remote};

/// Is the telemetry engine: the one implementation of spans, metrics, events and propagation behind the framework and the raw-client functions.
///
/// It is a handle; cloning is cheap. Providers are arguments, the global ones a default that is read when the engine is built.
///
/// # Examples
///
/// ```
/// use throughline_core::telemetry::Instrumentation;
///
/// let from_globals = Instrumentation::from_globals();
/// let chosen = Instrumentation::builder()
///     .tracer_provider(opentelemetry::trace::noop::NoopTracerProvider::new())
///     .build();
/// # let _ = (from_globals, chosen);
/// ```
#[derive(Clone)]
pub struct Instrumentation {
    pub(crate) engine: Arc<Engine>,
}

/// What all operations of one instrumentation share.
pub(crate) struct Engine {
    pub(crate) tracer: Box<dyn StartSpan>,
    pub(crate) metrics: Metrics,
    pub(crate) events: Option<Box<dyn RecordException>>,
    pub(crate) propagator: Propagator,
    pub(crate) settings: Settings,
    /// Around code of the user.
    pub(crate) guard: Guard,
    sdk: AtomicU8,
}

/// The propagators in use: our own can say that the headers hold nothing, which costs no context.
pub(crate) enum Propagator {
    Own(Propagators),
    Other(Box<dyn TextMapPropagator + Send + Sync>),
}

impl Propagator {
    pub(super) fn new<P: TextMapPropagator + Send + Sync + 'static>(propagator: P) -> Self {
        match (&propagator as &dyn Any).downcast_ref::<Propagators>() {
            Some(own) => Self::Own(own.clone()),
            None => Self::Other(Box::new(propagator)),
        }
    }

    fn as_dyn(&self) -> &(dyn TextMapPropagator + Send + Sync) {
        match self {
            Self::Own(propagators) => propagators,
            Self::Other(propagator) => propagator.as_ref(),
        }
    }
}

/// Whether the tracer is the API's own, which never makes a span: the only thing about it that is remembered.
const SDK_UNKNOWN: u8 = 0;
const SDK_NONE: u8 = 1;
const SDK_SOME: u8 = 2;

impl Instrumentation {
    /// Creates an engine on the global providers, with the propagators of `OTEL_PROPAGATORS` (default: trace context and baggage).
    ///
    /// Install the providers first: what is global when this runs is what is used.
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::from_globals();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn from_globals() -> Self {
        Self::builder().build()
    }

    /// Starts a builder with every default.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::{Instrumentation, ParentMode};
    /// let engine = Instrumentation::builder().parent_mode(ParentMode::LinkOnly).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(super) fn from_parts(
        tracer: Option<Box<dyn StartSpan>>,
        metrics: Metrics,
        events: Option<Box<dyn RecordException>>,
        propagator: Propagator,
        settings: Settings,
    ) -> Self {
        let tracer =
            tracer.unwrap_or_else(|| Box::new(global::tracer_provider().tracer_with_scope(instrumentation_scope())));
        let sdk = AtomicU8::new(match tracer.is_known_noop() {
            None => SDK_UNKNOWN,
            Some(true) => SDK_NONE,
            Some(false) => SDK_SOME,
        });
        let guard = Guard::default();
        let metrics = metrics.guarded(&guard);
        Self { engine: Arc::new(Engine { tracer, metrics, events, propagator, settings, guard, sdk }) }
    }

    /// Prepares the telemetry of one subscription: what is the same for all its messages is built once.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::message::{Operations, Source, System};
    /// use throughline_core::telemetry::Instrumentation;
    ///
    /// let system = Arc::new(System::new("nats", Operations::DEFAULT));
    /// let consumer = Instrumentation::from_globals().consumer(Arc::new(Source::new(system).with_destination("orders")));
    /// # let _ = consumer;
    /// ```
    #[must_use]
    pub fn consumer(&self, source: Arc<Source>) -> Consumer {
        Consumer::new(self.clone(), source)
    }

    /// Prepares the telemetry of what is published on one connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::message::{Operations, System};
    /// use throughline_core::telemetry::Instrumentation;
    ///
    /// let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// # let _ = producer;
    /// ```
    #[must_use]
    pub fn producer(&self, system: Arc<System>) -> Producer {
        Producer::new(self.clone(), system)
    }

    /// The engine without its type, for a delivery that does not know it.
    pub(crate) fn to_any(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.engine) as Arc<dyn Any + Send + Sync>
    }

    pub(super) fn from_any(engine: &Arc<dyn Any + Send + Sync>) -> Option<Self> {
        Arc::clone(engine).downcast().ok().map(|engine| Self { engine })
    }

    /// Returns the propagator in use.
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::from_globals();
    /// assert!(engine.propagator().fields().any(|name| name == "traceparent"));
    /// ```
    #[must_use]
    pub fn propagator(&self) -> &(dyn TextMapPropagator + Send + Sync) {
        self.engine.propagator.as_dyn()
    }
}

impl fmt::Debug for Instrumentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instrumentation").field("propagator", &self.propagator()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Tells whether spans can be made at all: only the API's own tracer, which makes none, is left out of the work for one.
    pub(crate) fn has_sdk(&self) -> bool {
        self.sdk.load(Ordering::Relaxed) != SDK_NONE
    }

    /// Tells whether anything is recorded at all: spans, metrics or events.
    pub(crate) fn is_recording(&self) -> bool {
        self.has_sdk() || self.metrics.is_enabled() || self.events.is_some()
    }

    /// Tells whether a span that was asked for is one. One that is invalid, as of a provider that was shut down, or that is its parent's,
    /// is none: the message goes on as without an SDK (PROP-20), and the next one is looked at afresh.
    pub(crate) fn is_real(&self, span: &SpanContext, parent: &Context) -> bool {
        let is_real = span.is_valid() && span.span_id() != parent.span().span_context().span_id();
        if self.sdk.load(Ordering::Relaxed) == SDK_UNKNOWN {
            let is_noop = !is_real && self.guard.run(Foreign::SpanStart, || self.tracer.is_noop()).unwrap_or_default();
            self.sdk.store(if is_noop { SDK_NONE } else { SDK_SOME }, Ordering::Relaxed);
        }
        is_real
    }

    /// Reads the headers into a copy of `base`; `None` when they hold nothing (PROP-08, PROP-16).
    pub(crate) fn extract(&self, base: &Context, headers: &dyn Extractor) -> Option<Context> {
        let extract = || match &self.propagator {
            Propagator::Own(propagators) => propagators.find(base, headers),
            Propagator::Other(propagator) => Some(propagator.extract_with_context(base, headers)),
        };
        self.guard.run(Foreign::Extract, extract).flatten()
    }

    /// Writes the context and the baggage that may leave (BAGG-15) into the headers of another call.
    pub(crate) fn inject_call(&self, context: &Context, injector: &mut dyn Injector) {
        let outgoing = scope::outgoing_context(context, &self.settings.outbound_baggage);
        self.guard.run(Foreign::Inject, || self.propagator.as_dyn().inject_context(&outgoing, injector));
    }

    /// Reads the headers by themselves (PROP-08, PROP-16).
    pub(crate) fn read(&self, headers: &dyn Extractor) -> Remote {
        let read = || match &self.propagator {
            Propagator::Own(propagators) => propagators.read(headers),
            Propagator::Other(propagator) => Remote::of(propagator.extract_with_context(&Context::new(), headers)),
        };
        self.guard.run(Foreign::Extract, read).unwrap_or_default()
    }

    /// Writes the context of a span and the baggage of a context into the headers of a message, as [`inject`](Self::inject).
    pub(crate) fn inject_span(&self, span: &SpanContext, context: &Context, carrier: &mut dyn Carrier) {
        let outgoing = scope::outgoing_context(context, &self.settings.outbound_baggage);
        self.guard.run(Foreign::Inject, || match &self.propagator {
            Propagator::Own(propagators) => propagators.replace_with(span, &outgoing, carrier),
            Propagator::Other(propagator) => {
                propagation::inject(propagator.as_ref(), &outgoing.with_remote_span_context(span.clone()), carrier);
            }
        });
    }

    /// Writes the context and the baggage into the headers of a message, in place of whatever was there (PROP-04, -05).
    pub(crate) fn inject(&self, context: &Context, carrier: &mut dyn Carrier) {
        self.guard.run(Foreign::Inject, || {
            if let Propagator::Own(propagators) = &self.propagator
                && scope::carries_nothing(context)
            {
                return propagators.remove(carrier);
            }
            let outgoing = scope::outgoing_context(context, &self.settings.outbound_baggage);
            match &self.propagator {
                Propagator::Own(propagators) => propagators.replace(&outgoing, carrier),
                Propagator::Other(propagator) => propagation::inject(propagator.as_ref(), &outgoing, carrier),
            }
        });
    }
}

/// The one scope of everything the framework emits (GEN-01, GEN-02).
pub(super) fn instrumentation_scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE_NAME)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SCHEMA_URL)
        .build()
}

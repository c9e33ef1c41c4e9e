use std::borrow::Cow;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use opentelemetry::logs::{Logger, LoggerProvider};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry::{Key, KeyValue};

use super::choices::{BaggagePolicy, BatchBaggage, OperationInfo, ParentMode, SettleSpans, Trust};
use super::engine::{Engine, Metrics, Propagator, RecordException, Settings, StartSpan};
use super::instrumentation::Instrumentation;
use super::semconv::{BAGGAGE_PREFIX, HEADER_PREFIX, instrumentation_scope};
use crate::guard::Guard;
use crate::propagation::Propagators;

/// A builder of the telemetry of an app, a publisher or a raw client. `T` is what comes out of it:
/// [`Instrumentation`], [`TelemetryMiddleware`](crate::middleware::TelemetryMiddleware) or an adapter's own handle.
///
/// # Examples
///
/// ```
/// use throughline_core::telemetry::{Instrumentation, SettleSpans, Trust};
///
/// let engine = Instrumentation::builder()
///     .trust(Trust::Link)
///     .settle_spans(SettleSpans::Always)
///     .capture_headers(["tenant"])
///     .build();
/// # let _ = engine;
/// ```
pub struct Builder<T = Instrumentation> {
    tracer: Option<Box<dyn StartSpan>>,
    metrics: Option<Metrics>,
    events: Option<Box<dyn RecordException>>,
    propagator: Option<Propagator>,
    settings: Settings,
    target: PhantomData<fn() -> T>,
}

impl<T: From<Instrumentation>> Builder<T> {
    pub(crate) fn new() -> Self {
        Self {
            tracer: None,
            metrics: None,
            events: None,
            propagator: None,
            settings: Settings::default(),
            target: PhantomData,
        }
    }

    /// Starts a builder whose result is a `T`; adapters use it for their own handle.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::{Builder, Instrumentation};
    /// let engine = Builder::<Instrumentation>::for_target().build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn for_target() -> Self {
        Self::new()
    }

    /// Sets where spans go (default: the global tracer provider, from when it is set on).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Instrumentation;
    /// let provider = opentelemetry::trace::noop::NoopTracerProvider::new();
    /// let engine = Instrumentation::builder().tracer_provider(provider).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn tracer_provider<P>(mut self, provider: P) -> Self
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Span + Send + Sync + 'static,
    {
        self.tracer = Some(Box::new(provider.tracer_with_scope(instrumentation_scope())));
        self
    }

    /// Sets where metrics go (default: the global meter provider, from when it is set on).
    #[must_use]
    pub fn meter_provider(mut self, provider: &(impl MeterProvider + ?Sized)) -> Self {
        self.metrics = Some(Metrics::new(&provider.meter_with_scope(instrumentation_scope())));
        self
    }

    /// Sets where error events go (default: nowhere).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Instrumentation;
    /// let engine = Instrumentation::builder().logger_provider(&opentelemetry::logs::NoopLoggerProvider::new()).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn logger_provider<P>(mut self, provider: &P) -> Self
    where
        P: LoggerProvider,
        P::Logger: Logger + Send + Sync + 'static,
    {
        self.events = Some(Box::new(provider.logger_with_scope(instrumentation_scope())));
        self
    }

    /// Sets the propagator (default: [`Propagators::from_env`]).
    #[must_use]
    pub fn propagator(mut self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.propagator = Some(Propagator::new(propagator));
        self
    }

    /// Sets the propagator that takes the place of [`Propagators::from_env`] where none is set.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::propagation::Propagators;
    /// use throughline_core::telemetry::Instrumentation;
    /// // Whatever the environment of the machine says.
    /// let engine = Instrumentation::builder().propagator_or(Propagators::default()).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn propagator_or(mut self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        self.propagator = self.propagator.or_else(|| Some(Propagator::new(propagator)));
        self
    }

    /// Sets what the parent of a process span is (default: [`ParentMode::Auto`]).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::{Instrumentation, ParentMode};
    /// let engine = Instrumentation::builder().parent_mode(ParentMode::Parent).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn parent_mode(mut self, mode: ParentMode) -> Self {
        self.settings.parent = mode;
        self
    }

    /// Sets how far incoming headers are trusted (default: [`Trust::Continue`]).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::{Instrumentation, Trust};
    /// let engine = Instrumentation::builder().trust(Trust::Ignore).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.settings.trust = trust;
        self
    }

    /// Switches the create span of each message of a batch publish (default on).
    #[must_use]
    pub fn create_spans(mut self, on: bool) -> Self {
        self.settings.create_spans = on;
        self
    }

    /// Switches a receive span for every message or batch the framework takes from the broker (default off).
    #[must_use]
    pub fn receive_spans(mut self, on: bool) -> Self {
        self.settings.receive_spans = on;
        self
    }

    /// Sets which settlements get a span (default [`SettleSpans::Exceptional`]).
    #[must_use]
    pub fn settle_spans(mut self, which: SettleSpans) -> Self {
        self.settings.settle_spans = which;
        self
    }

    /// Sets how the baggage of a batch is merged (default [`BatchBaggage::Merged`]).
    #[must_use]
    pub fn batch_baggage(mut self, how: BatchBaggage) -> Self {
        self.settings.batch_baggage = how;
        self
    }

    /// Sets which incoming baggage entries are taken over (default all).
    #[must_use]
    pub fn inbound_baggage(mut self, policy: BaggagePolicy) -> Self {
        self.settings.inbound_baggage = policy;
        self
    }

    /// Sets which baggage entries leave with published messages (default all).
    #[must_use]
    pub fn outbound_baggage(mut self, policy: BaggagePolicy) -> Self {
        self.settings.outbound_baggage = policy;
        self
    }

    /// Copies the listed baggage entries to process spans as `throughline.baggage.{key}` (default none).
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::builder().baggage_attributes(["tenant"]).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn baggage_attributes<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.settings.baggage_attributes = prefixed(BAGGAGE_PREFIX, keys);
        self
    }

    /// Copies the listed message headers to process spans as `throughline.header.{name}` (default none).
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::builder().capture_headers(["tenant"]).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn capture_headers<K: Into<String>>(mut self, names: impl IntoIterator<Item = K>) -> Self {
        self.settings.captured_headers = prefixed(HEADER_PREFIX, names);
        self
    }

    /// Records `messaging.message.body.size` on spans of single messages (default off).
    #[must_use]
    pub fn body_sizes(mut self, on: bool) -> Self {
        self.settings.body_sizes = on;
        self
    }

    /// Records message ids (default on; switch off where they are personal data).
    #[must_use]
    pub fn message_ids(mut self, on: bool) -> Self {
        self.settings.message_ids = on;
        self
    }

    /// Records correlation ids (default on; switch off where they are personal data).
    #[must_use]
    pub fn conversation_ids(mut self, on: bool) -> Self {
        self.settings.conversation_ids = on;
        self
    }

    /// Never records a broker's own attribute of that name, such as a message key.
    #[must_use]
    pub fn hide_attribute(mut self, name: &'static str) -> Self {
        self.settings.hidden_attributes.push(name);
        self
    }

    /// Puts the text of handler errors into the span status (default off, since the text may hold private data).
    #[must_use]
    pub fn error_descriptions(mut self, on: bool) -> Self {
        self.settings.error_descriptions = on;
        self
    }

    /// Sets the longest string attribute in characters (default 1024).
    #[must_use]
    pub fn max_value_length(mut self, characters: usize) -> Self {
        self.settings.max_value_length = characters;
        self
    }

    /// Makes spans only for operations the filter accepts; context and baggage go on for the others too, and metrics are recorded.
    #[must_use]
    pub fn filter(mut self, filter: impl Fn(&OperationInfo<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.settings.filter = Some(Arc::new(filter));
        self
    }

    /// Names spans; `None` keeps the conventional name. Keep names low in cardinality.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Instrumentation;
    /// let engine = Instrumentation::builder().span_name(|operation| operation.template.map(|t| t.to_owned().into())).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn span_name(
        mut self,
        name: impl Fn(&OperationInfo<'_>) -> Option<Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.settings.span_name = Some(Arc::new(name));
        self
    }

    /// Adds attributes to spans before they start, so that samplers see them.
    #[must_use]
    pub fn attributes(mut self, add: impl Fn(&OperationInfo<'_>, &mut Vec<KeyValue>) + Send + Sync + 'static) -> Self {
        self.settings.attributes = Some(Arc::new(add));
        self
    }

    /// Classifies handler errors: the value of `error.type`, one of few; `None` keeps the type's path.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Instrumentation;
    /// let engine = Instrumentation::builder().error_type(|error| error.is::<std::io::Error>().then_some("io".into())).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn error_type(
        mut self,
        classify: impl Fn(&(dyn Error + 'static)) -> Option<Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.settings.error_type = Some(Arc::new(classify));
        self
    }

    /// Builds it. Providers that were not set here are the global ones; those may be set later.
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::builder().build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn build(self) -> T {
        let metrics = self.metrics.unwrap_or_else(Metrics::from_globals);
        let propagator = self.propagator.unwrap_or_else(|| Propagator::Own(Propagators::from_env()));
        let engine = Engine::new(self.tracer, metrics, self.events, propagator, self.settings);
        T::from(Instrumentation::new(engine))
    }
}

impl Instrumentation {
    /// Creates an engine on the global providers, with the propagators of `OTEL_PROPAGATORS` (default: trace context and baggage).
    ///
    /// The providers may be set later: spans and metrics are made from when each is set on, and stay with the first one that was set.
    /// Who sets a provider after thousands of messages went without may miss it for a few more.
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

    /// Starts a builder with the settings, hooks and propagator of this instrumentation, and without its providers: those are set anew.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::noop::NoopTracerProvider;
    /// use throughline_core::telemetry::{Instrumentation, SettleSpans};
    /// let ours = Instrumentation::builder().settle_spans(SettleSpans::Always).build();
    /// // Settle spans as before, elsewhere.
    /// let elsewhere = ours.to_builder().tracer_provider(NoopTracerProvider::new()).build();
    /// # let _ = elsewhere;
    /// ```
    #[must_use]
    pub fn to_builder(&self) -> Builder<Self> {
        let settings = Settings { guard: Guard::default(), ..Settings::clone(&self.engine.settings) };
        Builder { propagator: Some(self.engine.propagator.clone()), settings, ..Builder::new() }
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
}

fn prefixed<K: Into<String>>(prefix: &str, keys: impl IntoIterator<Item = K>) -> Vec<(String, Key)> {
    keys.into_iter()
        .map(|key| {
            let key = key.into();
            let attribute = Key::from(Arc::<str>::from(format!("{prefix}{key}")));
            (key, attribute)
        })
        .collect()
}

use std::env::{self, VarError};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, LazyLock};

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::warn;

use super::baggage;
use super::carrier::{self, Carrier};
use super::{B3Propagator, BaggagePropagator, JaegerPropagator, TraceContextPropagator};
use crate::causes::debug_with_causes;
use crate::guard::{Foreign, Guard};

const VARIABLE: &str = "OTEL_PROPAGATORS";

const NONE: &str = "none";

/// Names that are known, in the order of the documentation.
const KNOWN: [&str; 6] = ["tracecontext", "baggage", "b3", "b3multi", "jaeger", NONE];

static DEFAULT: LazyLock<Propagators> = LazyLock::new(|| {
    Propagators::from_formats(vec![
        Format::TraceContext(TraceContextPropagator::new()),
        Format::Baggage(BaggagePropagator::new()),
    ])
});

/// The propagators of a service, in order and each once, and acts as one.
///
/// Injection runs them all; extraction runs them in order, each on the context the one before returned, so of two
/// formats that carry a span the later one wins. The default is trace context plus baggage, because that is
/// what the OpenTelemetry specification asks for. A clone costs one reference count.
///
/// Without any propagator ([`Propagators::none`]) nothing is written, and extraction returns the given context.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::Propagators;
///
/// let propagators = Propagators::from_names("tracecontext, baggage, b3")?;
/// assert!(propagators.names().eq(["tracecontext", "baggage", "b3"]));
/// # Ok::<(), throughline_core::propagation::UnknownPropagator>(())
/// ```
#[derive(Clone, Debug)]
pub struct Propagators {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    formats: Vec<Format>,
    fields: Vec<String>,
}

/// One propagator; the known ones are called without a virtual call.
#[derive(Clone, Debug)]
enum Format {
    B3(B3Propagator),
    B3Multi(B3Propagator),
    Baggage(BaggagePropagator),
    Custom(Arc<Custom>),
    Jaeger(JaegerPropagator),
    TraceContext(TraceContextPropagator),
}

/// One of the user's own. When it panics, the other formats go on without it.
#[derive(Debug)]
struct Custom<P: ?Sized = dyn TextMapPropagator + Send + Sync> {
    guard: Guard,
    propagator: P,
}

impl Propagators {
    /// Creates a list without propagators: no header is written or read.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::propagation::Propagators;
    ///
    /// assert_eq!(Propagators::none().names().count(), 0);
    /// ```
    #[must_use]
    pub fn none() -> Self {
        Self::from_formats(Vec::new())
    }

    /// Reads a comma-separated list of names, as code that configures a service has it.
    ///
    /// Names are trimmed, compared without regard to case, and taken once. `none` gives no propagator, whatever stands
    /// beside it; an empty list gives the default.
    ///
    /// # Errors
    ///
    /// Returns [`UnknownPropagator`] with the first name that is not known.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::propagation::Propagators;
    ///
    /// assert!(Propagators::from_names("B3Multi").is_ok());
    /// assert!(Propagators::from_names("xray").is_err_and(|error| error.name() == "xray"));
    /// ```
    pub fn from_names(names: &str) -> Result<Self, UnknownPropagator> {
        match unknown_names(names).next() {
            Some(name) => Err(UnknownPropagator { name: name.to_owned() }),
            None => Ok(Self::from_known(names)),
        }
    }

    /// Reads the variable `OTEL_PROPAGATORS`; call it once, at setup.
    ///
    /// See [`from_env_value`](Self::from_env_value) for what the value may be.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::propagation::Propagators;
    ///
    /// let propagators = Propagators::from_env();
    /// # let _ = propagators;
    /// ```
    #[must_use]
    pub fn from_env() -> Self {
        match env::var(VARIABLE) {
            Ok(value) => Self::from_env_value(Some(&value)),
            Err(VarError::NotPresent) => Self::default(),
            Err(VarError::NotUnicode(_)) => {
                warn!(variable = VARIABLE, "value is not unicode, using the default propagators");
                Self::default()
            }
        }
    }

    /// Reads a value of `OTEL_PROPAGATORS`: a list as in [`from_names`](Self::from_names), but an unknown name is
    /// skipped with a warning.
    ///
    /// A value that is absent, empty or without any known name gives the default.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::propagation::Propagators;
    ///
    /// assert!(Propagators::from_env_value(None).names().eq(["tracecontext", "baggage"]));
    /// assert!(Propagators::from_env_value(Some("xray,b3")).names().eq(["b3"]));
    /// assert_eq!(Propagators::from_env_value(Some("none")).names().count(), 0);
    /// ```
    #[must_use]
    pub fn from_env_value(value: Option<&str>) -> Self {
        let names = value.unwrap_or_default();
        for name in unknown_names(names) {
            warn!(variable = VARIABLE, name, "unknown propagator skipped");
        }
        Self::from_known(names)
    }

    /// Adds a propagator at the end, after those that are there.
    #[must_use]
    pub fn with(self, propagator: impl TextMapPropagator + Send + Sync + 'static) -> Self {
        let mut formats = self.inner.formats.clone();
        formats.push(Format::Custom(Arc::new(Custom { guard: Guard::default(), propagator })));
        Self::from_formats(formats)
    }

    /// Iterates over the names of the propagators in their order; one added by [`with`](Self::with) is called
    /// `custom`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.inner.formats.iter().map(Format::name)
    }

    /// Builds the list from the known names in `names` and passes over the others.
    fn from_known(names: &str) -> Self {
        if split(names).any(|name| name.eq_ignore_ascii_case(NONE)) {
            return Self::none();
        }
        let mut formats: Vec<Format> = Vec::new();
        for format in split(names).filter_map(Format::from_name) {
            if formats.iter().all(|known| known.name() != format.name()) {
                formats.push(format);
            }
        }
        if formats.is_empty() { Self::default() } else { Self::from_formats(formats) }
    }

    fn from_formats(formats: Vec<Format>) -> Self {
        let mut fields: Vec<String> = Vec::new();
        for field in formats.iter().flat_map(|format| format.as_propagator().fields()) {
            if fields.iter().all(|known| known != field) {
                fields.push(field.to_owned());
            }
        }
        Self { inner: Arc::new(Inner { formats, fields }) }
    }
}

impl Propagators {
    /// Returns the context with what the headers hold, or `None` when they hold nothing.
    pub(crate) fn find(&self, cx: &Context, extractor: &dyn Extractor) -> Option<Context> {
        let mut found = None;
        for format in &self.inner.formats {
            found = format.find(found.as_ref().unwrap_or(cx), extractor).or(found);
        }
        found
    }
}

impl Propagators {
    /// Removes the propagation headers of these formats.
    pub(crate) fn remove(&self, carrier: &mut dyn Carrier) {
        carrier::remove(self, carrier);
    }

    /// Writes the context in place of what propagation headers of these formats are there.
    // PROP-04, PROP-05.
    pub(crate) fn replace(&self, cx: &Context, carrier: &mut dyn Carrier) {
        self.replace_with(cx.span().span_context(), cx, carrier);
    }

    /// Does the same with the context of a span and the baggage of a context.
    pub(crate) fn replace_with(&self, span: &SpanContext, cx: &Context, carrier: &mut dyn Carrier) {
        self.remove(carrier);
        for format in &self.inner.formats {
            match format {
                Format::Baggage(propagator) => propagator.put(cx, carrier),
                Format::TraceContext(propagator) => propagator.put(span, carrier),
                other => other.inject(&cx.with_remote_span_context(span.clone()), carrier),
            }
        }
    }

    /// Returns what the headers hold, without a context around it.
    pub(crate) fn read(&self, extractor: &dyn Extractor) -> Remote {
        let mut remote = Remote::default();
        for format in &self.inner.formats {
            match format {
                Format::Baggage(propagator) => remote.baggage = propagator.read(extractor).or(remote.baggage),
                Format::TraceContext(propagator) => remote.span = propagator.read(extractor).or(remote.span),
                other => remote = other.find(&remote.to_context(), extractor).map_or(remote, Remote::of),
            }
        }
        remote
    }
}

/// What the headers of a message hold.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    pub(crate) span: Option<SpanContext>,
    pub(crate) baggage: Option<Baggage>,
}

impl Remote {
    pub(crate) fn of(context: Context) -> Self {
        let span = Some(context.span().span_context().clone()).filter(SpanContext::is_valid);
        let baggage = context.baggage();
        Self { span, baggage: (!baggage.is_empty()).then(|| baggage::copy(baggage)) }
    }

    fn to_context(&self) -> Context {
        let context = Context::new();
        let context = match &self.span {
            Some(span) => context.with_remote_span_context(span.clone()),
            None => context,
        };
        match &self.baggage {
            Some(baggage) => context.with_baggage(baggage::copy(baggage)),
            None => context,
        }
    }
}

impl Default for Propagators {
    /// Returns trace context plus baggage; all defaults share one list.
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl TextMapPropagator for Propagators {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        for format in &self.inner.formats {
            format.inject(cx, injector);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.find(cx, extractor).unwrap_or_else(|| cx.clone())
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.inner.fields)
    }
}

impl Format {
    fn from_name(name: &str) -> Option<Self> {
        let name = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
        Some(match name {
            "b3" => Self::B3(B3Propagator::single()),
            "b3multi" => Self::B3Multi(B3Propagator::multi()),
            "baggage" => Self::Baggage(BaggagePropagator::new()),
            "jaeger" => Self::Jaeger(JaegerPropagator::new()),
            "tracecontext" => Self::TraceContext(TraceContextPropagator::new()),
            _ => return None,
        })
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::B3(_) => "b3",
            Self::B3Multi(_) => "b3multi",
            Self::Baggage(_) => "baggage",
            Self::Custom(_) => "custom",
            Self::Jaeger(_) => "jaeger",
            Self::TraceContext(_) => "tracecontext",
        }
    }

    fn as_propagator(&self) -> &dyn TextMapPropagator {
        match self {
            Self::B3(propagator) | Self::B3Multi(propagator) => propagator,
            Self::Baggage(propagator) => propagator,
            Self::Custom(custom) => &custom.propagator,
            Self::Jaeger(propagator) => propagator,
            Self::TraceContext(propagator) => propagator,
        }
    }

    fn inject(&self, cx: &Context, injector: &mut dyn Injector) {
        match self {
            Self::B3(propagator) | Self::B3Multi(propagator) => propagator.inject_context(cx, injector),
            Self::Baggage(propagator) => propagator.inject_context(cx, injector),
            Self::Custom(custom) => {
                custom.guard.run(Foreign::Propagator, || custom.propagator.inject_context(cx, injector));
            }
            Self::Jaeger(propagator) => propagator.inject_context(cx, injector),
            Self::TraceContext(propagator) => propagator.inject_context(cx, injector),
        }
    }

    /// Returns the context with what the headers hold; `None` spares a clone when a known format finds nothing.
    fn find(&self, cx: &Context, extractor: &dyn Extractor) -> Option<Context> {
        match self {
            Self::B3(propagator) | Self::B3Multi(propagator) => propagator.find(cx, extractor),
            Self::Baggage(propagator) => propagator.find(cx, extractor),
            Self::Custom(custom) => {
                custom.guard.run(Foreign::Propagator, || custom.propagator.extract_with_context(cx, extractor))
            }
            Self::Jaeger(propagator) => propagator.find(cx, extractor),
            Self::TraceContext(propagator) => propagator.find(cx, extractor),
        }
    }
}

/// Splits a list of names; empty items do not count.
fn split(names: &str) -> impl Iterator<Item = &str> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty())
}

fn unknown_names(names: &str) -> impl Iterator<Item = &str> {
    split(names).filter(|name| !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// Which name in a list of propagators is not known.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::Propagators;
///
/// let Err(error) = Propagators::from_names("tracecontext,ottrace") else { unreachable!() };
/// assert_eq!(
///     error.to_string(),
///     "unknown propagator `ottrace`, known are tracecontext, baggage, b3, b3multi, jaeger, none",
/// );
/// ```
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct UnknownPropagator {
    name: String,
}

impl UnknownPropagator {
    /// Returns the name that is not known.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

debug_with_causes!(UnknownPropagator);

impl fmt::Display for UnknownPropagator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown propagator `{}`, known are {}", self.name, KNOWN.join(", "))
    }
}

impl Error for UnknownPropagator {}

#[cfg(test)]
mod tests;

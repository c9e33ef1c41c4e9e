use std::borrow::Cow;
use std::error::Error;

use opentelemetry::propagation::Injector;
use opentelemetry::trace::{SpanContext, SpanRef, TraceContextExt};
use opentelemetry::{Context, Key, KeyValue, Value};

use super::scope::Scope;
use crate::message::Delivery;

/// Access to the span of the message that is being handled.
///
/// Implemented by the extractor [`ProcessSpan`], by [`Delivery`], by each message of a batch and by the scope of a raw client.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::ProcessSpan;
/// use throughline_core::CurrentSpan;
///
/// async fn reserve(span: ProcessSpan) {
///     span.set_attribute("order.items", 3);
///     span.add_event("reserved", []);
/// }
/// ```
pub trait CurrentSpan {
    /// Returns the scope the span belongs to.
    fn scope(&self) -> Cow<'_, Scope>;

    /// Returns the OpenTelemetry context that holds the span.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     let context = span.context();
    ///     # let _ = context;
    /// }
    /// ```
    fn context(&self) -> Context {
        self.scope().context().clone()
    }

    /// Returns the ids of the span; invalid when nothing is traced.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     println!("handling in trace {}", span.span_context().trace_id());
    /// }
    /// ```
    fn span_context(&self) -> SpanContext {
        self.scope().context().span().span_context().clone()
    }

    /// Calls `f` with the span itself, for what the other methods do not cover.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     use opentelemetry::trace::Status;
    ///     span.with_span(|span| span.set_status(Status::error("half done")));
    /// }
    /// ```
    fn with_span<R>(&self, f: impl FnOnce(SpanRef<'_>) -> R) -> R
    where
        Self: Sized,
    {
        f(self.scope().context().span())
    }

    /// Sets an attribute of the process span; it is written when the span ends, the last value of a key winning.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     span.set_attribute("order.items", 3);
    /// }
    /// ```
    fn set_attribute(&self, key: impl Into<Key>, value: impl Into<Value>)
    where
        Self: Sized,
    {
        self.scope().set_attribute(KeyValue::new(key, value));
    }

    /// Adds an event with attributes.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     span.add_event("reserved", [opentelemetry::KeyValue::new("warehouse", "north")]);
    /// }
    /// ```
    fn add_event(&self, name: impl Into<Cow<'static, str>>, attributes: impl IntoIterator<Item = KeyValue>)
    where
        Self: Sized,
    {
        self.with_span(|span| span.add_event(name, attributes.into_iter().collect()));
    }

    /// Records an error that the handler itself deals with; the span's status stays as it is.
    ///
    /// It becomes a log event of the span where a logger provider was given, else a span event `exception`.
    /// An error the handler returns is recorded without this.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     if let Err(error) = "x".parse::<u8>() {
    ///         span.record_error(&error); // and go on without it
    ///     }
    /// }
    /// ```
    fn record_error<E: Error>(&self, error: &E)
    where
        Self: Sized,
    {
        self.scope().record_error(std::any::type_name::<E>(), error);
    }

    /// Writes the trace context and the baggage into the headers of another call, so that it continues the trace.
    ///
    /// Any OpenTelemetry [`Injector`] will do, such as the one for HTTP requests.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::ProcessSpan;
    /// use throughline_core::CurrentSpan;
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     let mut headers = std::collections::HashMap::new();
    ///     span.inject(&mut headers); // then send the call with these headers
    /// }
    /// ```
    fn inject(&self, injector: &mut dyn Injector) {
        self.scope().inject(injector);
    }
}

/// The span of the message or batch that is being handled, as an argument of a handler.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::ProcessSpan;
/// use throughline_core::CurrentSpan;
///
/// async fn reserve(span: ProcessSpan) {
///     span.set_attribute("order.items", 3);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ProcessSpan(pub(crate) Scope);

impl CurrentSpan for ProcessSpan {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(&self.0)
    }
}

impl CurrentSpan for Scope {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(self)
    }
}

impl CurrentSpan for Delivery {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Owned(self.open_scope())
    }
}

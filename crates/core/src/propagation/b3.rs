use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags};
use opentelemetry_propagator_b3::{B3Encoding, Propagator};

const SINGLE: &str = "b3";

/// The bit in which the wrapped crate keeps "no sampling decision was made". In a span context it is the random flag of W3C.
const DEFERRED: TraceFlags = TraceFlags::new(0x02);

/// The bit in which a span context keeps it.
const UNDECIDED: TraceFlags = TraceFlags::new(0x08);

/// The bit in which the wrapped crate keeps the debug flag.
const DEBUG: TraceFlags = TraceFlags::new(0x04);

static SINGLE_FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [SINGLE.into()]);

/// The several headers in the spelling of B3. The header names of all brokers tell cases apart, and so do readers in other languages.
const MULTI: [&str; 5] = ["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled", "X-B3-Flags", "X-B3-ParentSpanId"];

static MULTI_FIELDS: LazyLock<[String; 5]> = LazyLock::new(|| MULTI.map(str::to_owned));

/// A propagator of the span context in the B3 headers of Zipkin.
///
/// It wraps `opentelemetry-propagator-b3` and corrects it: the single form writes `b3` and nothing else, a
/// context without a valid span writes nothing instead of "do not sample", malformed ids with a sign are
/// refused, and the debug flag implies sampling. Both forms read the single header first and then the several ones; names are written as
/// B3 spells them, `b3` and `X-B3-TraceId`, and read in any case.
///
/// # Examples
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::propagation::TextMapPropagator;
/// use throughline_core::Headers;
/// use throughline_core::propagation::{B3Propagator};
///
/// let mut headers = Headers::new();
/// headers.append("X-B3-TraceId", "0af7651916cd43dd8448eb211c80319c");
/// headers.append("X-B3-SpanId", "b7ad6b7169203331");
/// headers.append("X-B3-Sampled", "1");
/// let cx = B3Propagator::single().extract_with_context(&Context::new(), &headers);
///
/// let mut outgoing = Headers::new();
/// B3Propagator::single().inject_context(&cx, &mut outgoing);
/// assert_eq!(outgoing.get("b3"), Some("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"));
/// assert_eq!(outgoing.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct B3Propagator {
    form: Form,
    single: Propagator,
    multi: Propagator,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Multi,
    Single,
}

impl B3Propagator {
    /// Creates the propagator that writes one header, `b3`; its name in `OTEL_PROPAGATORS` is `b3`.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use throughline_core::propagation::B3Propagator;
    ///
    /// assert!(B3Propagator::single().fields().eq(["b3"]));
    /// ```
    #[must_use]
    pub fn single() -> Self {
        Self::new(Form::Single)
    }

    /// Creates the propagator that writes the `X-B3-*` headers; its name in `OTEL_PROPAGATORS` is `b3multi`.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use throughline_core::propagation::B3Propagator;
    ///
    /// assert!(B3Propagator::multi().fields().any(|field| field == "X-B3-TraceId"));
    /// ```
    #[must_use]
    pub fn multi() -> Self {
        Self::new(Form::Multi)
    }

    fn new(form: Form) -> Self {
        Self {
            form,
            single: Propagator::with_encoding(B3Encoding::SingleHeader),
            multi: Propagator::with_encoding(B3Encoding::MultipleHeader),
        }
    }

    /// Returns the context with the remote span of the headers, or `None` when they hold no valid one.
    pub(super) fn find(&self, cx: &Context, extractor: &dyn Extractor) -> Option<Context> {
        // `d` is understood by one encoding of the crate only, `true` by the other only.
        let extractor = Strict(extractor);
        let found = [&self.single, &self.multi].into_iter().find_map(|reader| {
            let cx = reader.extract_with_context(&Context::new(), &extractor);
            let span_context = cx.span().span_context().clone();
            span_context.is_valid().then_some(span_context)
        })?;
        let flags = found.trace_flags();
        let flags = if flags & DEBUG == DEBUG { flags | TraceFlags::SAMPLED } else { flags };
        let flags = if flags & DEFERRED == DEFERRED { (flags & !DEFERRED) | UNDECIDED } else { flags };
        Some(cx.with_remote_span_context(with_flags(&found, flags)))
    }
}

impl TextMapPropagator for B3Propagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let writer = match self.form {
            Form::Multi => &self.multi,
            Form::Single => &self.single,
        };
        let mut injector = Only { form: self.form, injector };
        let flags = span_context.trace_flags();
        let known = as_the_crate_has_them(flags);
        if known == flags {
            writer.inject_context(cx, &mut injector);
        } else {
            let known = with_flags(span_context, known);
            writer.inject_context(&Context::new().with_remote_span_context(known), &mut injector);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.find(cx, extractor).unwrap_or_else(|| cx.clone())
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(match self.form {
            Form::Multi => MULTI_FIELDS.as_slice(),
            Form::Single => SINGLE_FIELDS.as_slice(),
        })
    }
}

/// Returns flags as the wrapped crate understands them. A decision that was made later replaces a missing one.
fn as_the_crate_has_them(flags: TraceFlags) -> TraceFlags {
    let is_undecided = flags & UNDECIDED == UNDECIDED && !flags.is_sampled();
    let known = flags & (TraceFlags::SAMPLED | DEBUG);
    if is_undecided { known | DEFERRED } else { known }
}

fn with_flags(span_context: &SpanContext, flags: TraceFlags) -> SpanContext {
    SpanContext::new(
        span_context.trace_id(),
        span_context.span_id(),
        flags,
        span_context.is_remote(),
        span_context.trace_state().clone(),
    )
}

/// Passes the headers of one form on in the spelling of B3, and swallows the others.
// PROP-B-02, PROP-B-05.
struct Only<'a> {
    form: Form,
    injector: &'a mut dyn Injector,
}

impl Injector for Only<'_> {
    fn set(&mut self, key: &str, value: String) {
        match self.form {
            Form::Single if key == SINGLE => self.injector.set(key, value),
            Form::Multi if key != SINGLE => {
                let spelled = MULTI.into_iter().find(|name| name.eq_ignore_ascii_case(key));
                self.injector.set(spelled.unwrap_or(key), value);
            }
            Form::Multi | Form::Single => {}
        }
    }
}

/// Hides values with a character that no B3 value has; the crate would read `+1` as a number.
struct Strict<'a>(&'a dyn Extractor);

impl Extractor for Strict<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.trim_matches([' ', '\t']);
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (value.bytes().all(clean) && !value.ends_with('-')).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests;

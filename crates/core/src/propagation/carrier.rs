use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use tracing::{debug, warn};

use super::jaeger;
use super::lookup::{self, Entry, Repeated};
use super::names::header_name;
use crate::message::Headers;

static REFUSED: AtomicU64 = AtomicU64::new(0);

/// The headers of a message on its way out, in the client's own type: what is written to, read from and cleared.
///
/// # Examples
///
/// ```
/// use throughline_core::Headers;
/// use throughline_core::propagation::Carrier;
///
/// let mut headers = Headers::new();
/// headers.append("Baggage", "tenant=acme");
/// let carrier: &mut dyn Carrier = &mut headers;
/// carrier.remove("baggage");
/// assert!(carrier.as_extractor().keys().is_empty());
/// ```
pub trait Carrier: Injector {
    /// Tells whether there is no header at all, so that none needs to be removed; `false` where that is not known.
    fn is_empty(&self) -> bool {
        false
    }

    /// Writes a header whose value one of the project's own propagators made: it is printable ASCII, and no header of that name is
    /// there. As [`Injector::set`] does by default.
    fn put(&mut self, name: &'static str, value: &[u8]) {
        self.set(name, String::from_utf8_lossy(value).into_owned());
    }

    /// Returns the headers for reading.
    fn as_extractor(&self) -> &dyn Extractor;

    /// Removes every header of that name, in any spelling.
    fn remove(&mut self, name: &str);
}

impl Carrier for Headers {
    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }

    fn put(&mut self, name: &'static str, value: &[u8]) {
        self.append(name, Bytes::copy_from_slice(value));
    }

    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn remove(&mut self, name: &str) {
        Self::remove(self, name);
    }
}

/// Writes propagation headers.
///
/// A name is written as the propagator gives it and replaces all headers of that name in any spelling. An empty value removes the header
/// and writes none. A header that [`is_writable`] refuses is
/// dropped and counted in [`refused_headers`].
// PROP-02, PROP-04, PROP-06, PROP-07.
impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        Self::remove(self, key);
        if value.is_empty() || !admit(key, &value) {
            return;
        }
        self.append(header_name(key, &[]), value);
    }

    fn reserve(&mut self, additional: usize) {
        Self::reserve(self, additional);
    }
}

/// Reads propagation headers.
///
/// Names are compared without regard to ASCII case, an exact match wins. A value that is empty or not UTF-8
/// is treated as absent. Of a repeated name the last value is given, and
/// [`Extractor::get_all`] gives all of them in their order, for the headers that are joined.
// PROP-03, PROP-K-02, PROP-K-03, PROP-12.
impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        lookup::value(raw(self), key, Repeated::Last)
    }

    fn keys(&self) -> Vec<&str> {
        self.iter().map(|(name, _)| name).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        lookup::values(raw(self), key)
    }
}

fn raw(headers: &Headers) -> impl Iterator<Item = Entry<'_>> {
    headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_ref())))
}

/// Writes the context into the headers and removes what other propagation headers of these formats were there.
///
/// This is how a message is to be given its context: a header copied from an incoming message, such as a `tracestate`
/// beside a new `traceparent`, does not survive, also when the context has nothing to put in its place.
///
/// # Examples
///
/// ```
/// use opentelemetry::Context;
/// use throughline_core::Headers;
/// use throughline_core::propagation::{Propagators, inject};
///
/// let mut headers = Headers::new();
/// headers.append("Baggage", "copied=1");
/// headers.append("tenant", "acme");
/// inject(&Propagators::default(), &Context::new(), &mut headers);
/// assert!(headers.iter().map(|(name, _)| name).eq(["tenant"]));
/// ```
pub fn inject(propagator: &dyn TextMapPropagator, cx: &Context, carrier: &mut dyn Carrier) {
    remove(propagator, carrier);
    propagator.inject_context(cx, carrier);
}

/// Removes the propagation headers of these formats.
pub(crate) fn remove(propagator: &dyn TextMapPropagator, carrier: &mut dyn Carrier) {
    if carrier.is_empty() {
        return;
    }
    for field in propagator.fields() {
        carrier.remove(field);
        if field == jaeger::UBER_TRACE_ID {
            remove_jaeger_baggage(carrier);
        }
    }
}

/// The names of these headers hold the baggage keys, so `fields()` cannot list them.
// PROP-B-07.
fn remove_jaeger_baggage(carrier: &mut dyn Carrier) {
    let names = carrier.as_extractor().keys();
    let names: Vec<String> =
        names.into_iter().filter(|name| jaeger::baggage_key(name).is_some()).map(str::to_owned).collect();
    for name in names {
        carrier.remove(&name);
    }
}

/// Tells whether a header may be written to any broker.
///
/// The name is made of visible ASCII characters without `:`; the value is made of the bytes 0x20–0x7E. An empty name
/// is refused, an empty value is not.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::is_writable;
///
/// assert!(is_writable("traceparent", "00-"));
/// assert!(!is_writable("trace parent", "00-"));
/// assert!(!is_writable("traceparent", "00-\r\n"));
/// ```
#[must_use]
pub fn is_writable(key: &str, value: &str) -> bool {
    // Without an early end, so that the compiler can look at many bytes at once.
    let all = |text: &str, fits: fn(u8) -> bool| text.bytes().fold(true, |all, byte| all & fits(byte));
    let is_name = all(key, |byte| byte.is_ascii_graphic() && byte != b':');
    !key.is_empty() && is_name && all(value, |byte| matches!(byte, 0x20..=0x7e))
}

/// Tells whether a header [`is_writable`], and counts and logs it when it is not; for the injectors of the adapters.
///
/// The first refusal is logged as a warning, later ones on level debug, always without content.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::{admit, refused_headers};
///
/// let before = refused_headers();
/// assert!(!admit("bad:name", "value"));
/// assert!(refused_headers() > before);
/// ```
#[must_use]
pub fn admit(key: &str, value: &str) -> bool {
    if is_writable(key, value) {
        return true;
    }
    if REFUSED.fetch_add(1, Ordering::Relaxed) == 0 {
        warn!("header that is not printable ASCII refused, further ones are logged on debug");
    } else {
        debug!("header that is not printable ASCII refused");
    }
    false
}

/// Returns how many propagation headers this process refused to write.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::{admit, refused_headers};
///
/// let before = refused_headers();
/// assert!(admit("traceparent", "00-"));
/// assert_eq!(refused_headers(), before);
/// ```
#[must_use]
pub fn refused_headers() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;

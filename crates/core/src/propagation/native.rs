use std::fmt;

use opentelemetry::propagation::{Extractor, Injector};

use super::carrier::{Carrier, admit};
use super::lookup::{self, Entry, Repeated};

/// The headers of a client, for an adapter: how they are listed, appended and removed. [`NativeExtractor`] and [`NativeInjector`]
/// read and write them by the rules of propagation.
///
/// # Examples
///
/// ```
/// use opentelemetry::propagation::{Extractor, Injector};
/// use throughline_core::propagation::lookup::{Entry, Repeated};
/// use throughline_core::propagation::{NativeCarrier, NativeExtractor, NativeInjector};
///
/// /// The headers of a client that keeps them in a list.
/// enum ListHeaders {}
///
/// impl NativeCarrier for ListHeaders {
///     type Read = Vec<(String, String)>;
///     type Written = Vec<(String, String)>;
///
///     const REPEATED: Repeated = Repeated::Last;
///
///     fn as_read(written: &Self::Written) -> &Self::Read {
///         written
///     }
///
///     fn iter(headers: &Self::Read) -> impl Iterator<Item = Entry<'_>> {
///         headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
///     }
///
///     fn append(headers: &mut Self::Written, name: &str, value: &str) {
///         headers.push((name.to_owned(), value.to_owned()));
///     }
///
///     fn remove(headers: &mut Self::Written, name: &str) {
///         headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
///     }
/// }
///
/// type HeaderInjector<'a> = NativeInjector<'a, ListHeaders>;
/// type HeaderExtractor<'a> = NativeExtractor<'a, ListHeaders>;
///
/// let mut headers = vec![("Baggage".to_owned(), "stale=1".to_owned())];
/// HeaderInjector::new(&mut headers).set("baggage", "tenant=acme".to_owned());
/// assert_eq!(HeaderExtractor::new(&headers).get("Baggage"), Some("tenant=acme"));
/// assert_eq!(headers.len(), 1);
/// ```
pub trait NativeCarrier {
    /// The headers of a message that came.
    type Read: 'static;

    /// The headers of a message on its way out.
    type Written: 'static;

    /// Which of several values of a name counts.
    const REPEATED: Repeated;

    /// Returns headers on their way out for reading.
    fn as_read(written: &Self::Written) -> &Self::Read;

    /// Iterates over names and values in their order; a value may be null.
    fn iter(headers: &Self::Read) -> impl Iterator<Item = Entry<'_>>;

    /// Appends a header that [may be written](super::is_writable); one that the client cannot hold all the same is left out.
    fn append(headers: &mut Self::Written, name: &str, value: &str);

    /// Removes every header of that name, in any spelling.
    fn remove(headers: &mut Self::Written, name: &str);

    /// Tells whether there is no header at all; `false` where that is not known.
    fn is_empty(headers: &Self::Written) -> bool {
        Self::iter(Self::as_read(headers)).next().is_none()
    }
}

/// What reads propagation headers from the headers of a client.
///
/// Names are compared without regard to ASCII case, an exact match wins. A value that is null, empty or not UTF-8 is treated as
/// absent. Of a repeated name [`get`](Extractor::get) gives the value that [counts](NativeCarrier::REPEATED), and
/// [`get_all`](Extractor::get_all) gives all of them in their order, for the headers that are joined.
///
/// The example of [`NativeCarrier`] makes one.
pub struct NativeExtractor<'a, N: NativeCarrier>(Option<&'a N::Read>);

impl<'a, N: NativeCarrier> NativeExtractor<'a, N> {
    /// Reads these headers; those of a message that has none are `None`.
    #[must_use]
    pub fn new(headers: impl Into<Option<&'a N::Read>>) -> Self {
        Self(headers.into())
    }

    /// Returns the value of a name that counts, for as long as the headers live.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'a str> {
        lookup::value(self.iter(), name, N::REPEATED)
    }

    /// Returns all values of a name, for as long as the headers live.
    #[must_use]
    pub fn find_all(&self, name: &str) -> Option<Vec<&'a str>> {
        lookup::values(self.iter(), name)
    }

    /// Returns the names, for as long as the headers live.
    #[must_use]
    pub fn names(&self) -> Vec<&'a str> {
        lookup::names(self.iter())
    }

    fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a, N> {
        self.0.into_iter().flat_map(N::iter)
    }
}

// PROP-03, PROP-12, PROP-K-02, PROP-K-03, PROP-N-01, PROP-N-02.
impl<N: NativeCarrier> Extractor for NativeExtractor<'_, N> {
    fn get(&self, key: &str) -> Option<&str> {
        self.find(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.names()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        self.find_all(key)
    }
}

impl<N: NativeCarrier> Clone for NativeExtractor<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N: NativeCarrier> Copy for NativeExtractor<'_, N> {}

impl<N: NativeCarrier> fmt::Debug for NativeExtractor<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NativeExtractor").field(&self.keys()).finish()
    }
}

/// What writes propagation headers into the headers of a client.
///
/// A name is written as the propagator gives it and replaces all headers of that name in any spelling. An empty value removes the
/// header and writes none. A header that no broker carries is dropped and counted in [`refused_headers`](super::refused_headers).
/// All other headers stay as they are.
///
/// The example of [`NativeCarrier`] makes one.
pub struct NativeInjector<'a, N: NativeCarrier>(&'a mut N::Written);

impl<'a, N: NativeCarrier> NativeInjector<'a, N> {
    /// Writes into these headers.
    #[must_use]
    pub const fn new(headers: &'a mut N::Written) -> Self {
        Self(headers)
    }

    fn as_read(&self) -> NativeExtractor<'_, N> {
        NativeExtractor(Some(N::as_read(self.0)))
    }
}

// PROP-02, PROP-04, PROP-06, PROP-07.
impl<N: NativeCarrier> Injector for NativeInjector<'_, N> {
    fn set(&mut self, key: &str, value: String) {
        N::remove(self.0, key);
        if !value.is_empty() && admit(key, &value) {
            N::append(self.0, key, &value);
        }
    }
}

impl<N: NativeCarrier> Extractor for NativeInjector<'_, N> {
    fn get(&self, key: &str) -> Option<&str> {
        self.as_read().find(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.as_read().names()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        self.as_read().find_all(key)
    }
}

impl<N: NativeCarrier> Carrier for NativeInjector<'_, N> {
    fn is_empty(&self) -> bool {
        N::is_empty(self.0)
    }

    fn put(&mut self, name: &'static str, value: &[u8]) {
        if let Ok(value) = std::str::from_utf8(value) {
            N::append(self.0, name, value);
        }
    }

    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn remove(&mut self, name: &str) {
        N::remove(self.0, name);
    }
}

impl<N: NativeCarrier> fmt::Debug for NativeInjector<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NativeInjector").field(&self.keys()).finish()
    }
}

//! Propagation over the client's headers.

use throughline_core::propagation::lookup::{Entry, Repeated};
use throughline_core::propagation::{NativeCarrier, NativeExtractor, NativeInjector};
use throughline_core::{Bytes, Headers};

/// Reads propagation headers from the client's.
pub type HeaderExtractor<'a> = NativeExtractor<'a, ClientHeaders>;

/// Writes propagation headers into the client's.
pub type HeaderInjector<'a> = NativeInjector<'a, ClientHeaders>;

/// The client's headers, for propagation.
#[derive(Debug)]
pub enum ClientHeaders {}

impl NativeCarrier for ClientHeaders {
    type Read = Vec<(String, Bytes)>;
    type Written = Vec<(String, Bytes)>;

    const REPEATED: Repeated = Repeated::Last;

    fn as_read(written: &Self::Written) -> &Self::Read {
        written
    }

    fn iter(headers: &Self::Read) -> impl Iterator<Item = Entry<'_>> {
        headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_ref())))
    }

    fn append(headers: &mut Self::Written, name: &str, value: &str) {
        headers.push((name.to_owned(), Bytes::from(value.to_owned())));
    }

    fn remove(headers: &mut Self::Written, name: &str) {
        headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    }
}

/// Copies the client's headers, for a handler that asks for all of them.
pub(crate) fn to_headers(native: &[(String, Bytes)]) -> Headers {
    native.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Makes the client's headers of those that are published.
pub(crate) fn to_native(headers: &Headers) -> Vec<(String, Bytes)> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

use std::borrow::Cow;

use bytes::Bytes;

use super::{Body, Encode, EncodeError};
use crate::message::Headers;

/// A reply with a key and headers of its own.
///
/// # Examples
///
/// ```
/// use throughline_core::codec::Reply;
///
/// async fn reserve(order: String) -> Reply<String> {
///     Reply::new(format!("reserved {order}")).key(order).header("tenant", "acme")
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Reply<T> {
    body: T,
    key: Option<Bytes>,
    headers: Headers,
}

impl<T> Reply<T> {
    /// Creates a reply from its body.
    pub fn new(body: T) -> Self {
        Self { body, key: None, headers: Headers::new() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets a header, in place of those with its name.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl<T: Encode> Encode for Reply<T> {
    fn encode(self) -> Result<Body, EncodeError> {
        let mut body = self.body.encode()?;
        body.key = self.key.or(body.key);
        for (name, value) in self.headers.iter() {
            body.headers.insert(name.to_owned(), value.clone());
        }
        Ok(body)
    }
}

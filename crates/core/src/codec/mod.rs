//! Bodies: what can be published and what a handler can take, as bytes, text or (feature `json`) JSON.

pub(crate) mod into_outcome;
#[cfg(feature = "json")]
pub(crate) mod json;
mod reply;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::Bytes;

pub(crate) use self::into_outcome::IntoOutcome;
pub use self::reply::Reply;
use crate::causes::debug_with_causes;
use crate::message::{BoxError, Delivery, Destination, Envelope, Headers};

/// An encoded body with its media type.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// The media type, such as `application/json`.
    pub content_type: Option<&'static str>,
    /// Whether there is no body at all; see [`absent`](Self::absent).
    pub is_absent: bool,
    /// The key of the message, where the value knows it.
    pub key: Option<Bytes>,
    /// Headers that belong to the body, such as those of an event in binary mode.
    pub headers: Headers,
}

impl Body {
    /// Creates a body without a media type.
    ///
    /// # Examples
    ///
    /// ```
    /// let body = throughline_core::codec::Body::new("hello").with_content_type("text/plain");
    /// assert_eq!(body.content_type, Some("text/plain"));
    /// ```
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    /// Says that the message has no body, which some brokers tell from an empty one; see
    /// [`Envelope::without_payload`].
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::codec::{Body, Encode, EncodeError};
    ///
    /// struct Deleted;
    ///
    /// impl Encode for Deleted {
    ///     fn encode(self) -> Result<Body, EncodeError> {
    ///         Ok(Body::absent())
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn absent() -> Self {
        Self { is_absent: true, ..Self::default() }
    }

    /// Sets the media type.
    #[must_use]
    pub const fn with_content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets a header, in place of those with its name.
    ///
    /// # Examples
    ///
    /// ```
    /// let body = throughline_core::codec::Body::new("{}").with_header("ce_type", "order.placed");
    /// assert_eq!(body.headers.get("ce_type"), Some("order.placed"));
    /// ```
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.headers.insert(name, value);
        self
    }

    #[inline]
    pub(crate) fn into_envelope(self, destination: impl Into<Destination>) -> Envelope {
        let mut envelope = Envelope::new(destination, self.bytes);
        if let Some(content_type) = self.content_type {
            envelope = envelope.with_content_type(content_type);
        }
        if let Some(key) = self.key {
            envelope = envelope.with_key(key);
        }
        *envelope.headers_mut() = self.headers;
        if self.is_absent { envelope.without_payload() } else { envelope }
    }
}

/// Turns a value into the body of a message.
///
/// Text says that it is `text/plain`, JSON that it is `application/json`, and bytes say nothing. Services in other languages decide by it.
///
/// # Examples
///
/// ```
/// use throughline_core::codec::Encode;
/// let body = "hello".encode().unwrap();
/// assert_eq!((body.bytes.as_ref(), body.content_type), (&b"hello"[..], Some("text/plain")));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the body of a message",
    label = "cannot be published or returned as a reply",
    note = "wrap a serialisable value as `Json(value)` (its type needs `#[derive(serde::Serialize)]`), or use `String`, `Bytes` or `Vec<u8>`",
    note = "a handler may also return `()`, `Settlement`, an `Envelope` with a destination of its own, several of them as a tuple or `Vec`, or a `Result` of these"
)]
pub trait Encode {
    /// Encodes the value.
    ///
    /// # Errors
    ///
    /// Fails when the value has no representation in the format.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::codec::Encode;
    /// assert_eq!("hello".encode().unwrap().bytes.as_ref(), b"hello");
    /// ```
    fn encode(self) -> Result<Body, EncodeError>;
}

/// Makes a value from a message: its body, and what the headers and the destination say about it.
///
/// The codecs of this crate go by the body alone. A media type that is missing or another one refuses no message: many senders write none, or
/// one that does not fit.
///
/// # Examples
///
/// A codec that decides by the content type:
///
/// ```
/// use throughline_core::codec::{Decode, DecodeError};
/// use throughline_core::{Delivery, Envelope};
///
/// struct Amount(u64);
///
/// impl Decode for Amount {
///     fn decode(message: &Delivery) -> Result<Self, DecodeError> {
///         let text = String::decode(message)?;
///         let digits = match message.content_type() {
///             Some("application/json") => text.trim_matches('"').to_owned(),
///             _ => text,
///         };
///         digits.parse().map(Self).map_err(|error| DecodeError::new("an amount", error))
///     }
/// }
///
/// let plain = Delivery::new("amounts", "7");
/// let json = Envelope::new("amounts", "\"7\"").with_content_type("application/json");
/// let json = Delivery::from_envelope(json, None, None);
/// assert!(matches!((Amount::decode(&plain), Amount::decode(&json)), (Ok(Amount(7)), Ok(Amount(7)))));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from the body of a message",
    label = "cannot be decoded",
    note = "use `Json<T>` (`T` needs `#[derive(serde::Deserialize)]`), `String`, `Bytes` or `Vec<u8>`",
    note = "an argument of a handler may also be `Headers`, `State<T>`, `ProcessSpan`, `Baggage`, `Publisher`, `Batch<T>`, `Delivery`, or a type of yours that implements `FromDelivery`"
)]
pub trait Decode: Sized {
    /// Decodes a message.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are not what the type expects; the message is then rejected, never retried.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, codec::Decode};
    /// assert!(String::decode(&Delivery::new("orders", &[0xff][..])).is_err());
    /// ```
    fn decode(message: &Delivery) -> Result<Self, DecodeError>;
}

/// The media type of text, as the header has it. Without `charset`: FastStream knows this form alone, and text is UTF-8 anyway.
const TEXT: &str = "text/plain";

/// Bytes, of which nothing is known: without a media type.
impl Encode for Bytes {
    fn encode(self) -> Result<Body, EncodeError> {
        Ok(Body::new(self))
    }
}

/// Bytes, of which nothing is known: without a media type.
impl Encode for Vec<u8> {
    fn encode(self) -> Result<Body, EncodeError> {
        Ok(Body::new(self))
    }
}

/// Text, with the media type `text/plain`.
impl Encode for String {
    fn encode(self) -> Result<Body, EncodeError> {
        Ok(Body::new(self).with_content_type(TEXT))
    }
}

/// Text, with the media type `text/plain`.
impl Encode for &'static str {
    fn encode(self) -> Result<Body, EncodeError> {
        Ok(Body::new(self).with_content_type(TEXT))
    }
}

impl Decode for Bytes {
    fn decode(message: &Delivery) -> Result<Self, DecodeError> {
        Ok(message.payload().clone())
    }
}

impl Decode for Vec<u8> {
    fn decode(message: &Delivery) -> Result<Self, DecodeError> {
        Ok(message.payload().to_vec())
    }
}

impl Decode for String {
    fn decode(message: &Delivery) -> Result<Self, DecodeError> {
        std::str::from_utf8(message.payload()).map(str::to_owned).map_err(|error| DecodeError::new("text", error))
    }
}

macro_rules! codec_error {
    ($(#[$doc:meta])* $name:ident, $verb:literal) => {
        $(#[$doc])*
        pub struct $name {
            format: &'static str,
            source: BoxError,
        }

        impl $name {
            /// Creates an error from the format's name and the cause.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("let error = throughline_core::codec::", stringify!($name), "::new(\"JSON\", std::fmt::Error);")]
            /// assert!(error.to_string().contains("JSON"));
            /// ```
            #[must_use]
            pub fn new(format: &'static str, source: impl Into<BoxError>) -> Self {
                Self { format, source: source.into() }
            }
        }

        debug_with_causes!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("the body could not be ", $verb, " as {}"), self.format)
            }
        }

        impl Error for $name {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self.source.as_ref())
            }
        }
    };
}

codec_error!(
    /// Says why a value could not be made into a body.
    EncodeError,
    "encoded"
);
codec_error!(
    /// Says why a body could not be read. The body itself is not in the text.
    DecodeError,
    "decoded"
);

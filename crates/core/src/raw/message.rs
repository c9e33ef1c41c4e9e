use std::borrow::Cow;
use std::time::SystemTime;

use crate::message::Native;
use crate::propagation::{NativeCarrier, NativeExtractor};
use crate::telemetry::{Consumer, Incoming};

/// How the messages of a client are read.
///
/// # Examples
///
/// ```
/// use std::borrow::Cow;
/// use throughline_core::message::Native;
/// # use throughline_core::propagation::NativeCarrier;
/// # use throughline_core::propagation::lookup::{Entry, Repeated};
/// use throughline_core::raw::{RawMessage, ReadMessage};
/// use throughline_core::telemetry::Consumer;
/// # enum ClientHeaders {}
/// # impl NativeCarrier for ClientHeaders {
/// #     type Read = Vec<(String, String)>;
/// #     type Written = Vec<(String, String)>;
/// #     const REPEATED: Repeated = Repeated::Last;
/// #     fn as_read(written: &Self::Written) -> &Self::Read { written }
/// #     fn iter(headers: &Self::Read) -> impl Iterator<Item = Entry<'_>> {
/// #         headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
/// #     }
/// #     fn append(headers: &mut Self::Written, name: &str, value: &str) { headers.push((name.to_owned(), value.to_owned())); }
/// #     fn remove(headers: &mut Self::Written, name: &str) { headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name)); }
/// # }
///
/// /// The client's own.
/// struct Message {
///     queue: String,
///     headers: Vec<(String, String)>,
///     body: Vec<u8>,
/// }
///
/// struct Tag(u64);
///
/// impl Native for Tag {}
///
/// struct Reader(Consumer);
///
/// impl ReadMessage<Message> for Reader {
///     type Headers = ClientHeaders;
///     type Native = Tag;
///
///     fn consumer(&self, _message: Option<&Message>) -> Cow<'_, Consumer> {
///         Cow::Borrowed(&self.0)
///     }
///
///     fn read<'a>(&self, message: &'a Message) -> RawMessage<'a, ClientHeaders, Tag> {
///         let mut read = RawMessage::new(&message.queue, &message.headers);
///         read.body_size = message.body.len();
///         read.id = read.header("message-id").map(Cow::Borrowed);
///         read
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{M}` is not a message of this client",
    label = "not a message of the client",
    note = "pass the client's own message, by reference"
)]
pub trait ReadMessage<M> {
    /// The client's headers.
    type Headers: NativeCarrier;

    /// What telemetry shows of a message beside what all brokers have.
    type Native: Native;

    /// Returns the telemetry of the subscription that a message came from; that of no message in particular for `None`.
    fn consumer(&self, message: Option<&M>) -> Cow<'_, Consumer>;

    /// Says what telemetry needs to know of a message.
    fn read<'a>(&self, message: &'a M) -> RawMessage<'a, Self::Headers, Self::Native>;

    /// Tells whether this is a message, as opposed to a word of the server that the client hands over like one. Those are not in the
    /// telemetry of messages, so here is the place to log them.
    fn accept(&self, message: &M) -> bool {
        let _ = message;
        true
    }
}

/// What telemetry needs to know of a message of a client, borrowed from it. The example of [`ReadMessage`] makes one.
#[non_exhaustive]
pub struct RawMessage<'a, H: NativeCarrier, N> {
    /// The concrete name the message was sent to.
    pub destination: &'a str,
    /// The headers.
    pub headers: NativeExtractor<'a, H>,
    /// `messaging.message.id`.
    pub id: Option<Cow<'a, str>>,
    /// `messaging.message.conversation_id`.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Where the answer is asked for.
    pub reply_to: Option<&'a str>,
    /// The body's length in bytes.
    pub body_size: usize,
    /// When the broker took the message.
    pub sent_at: Option<SystemTime>,
    /// Which delivery of the message this is, counted from 1.
    pub attempt: u32,
    /// Further attributes.
    pub native: Option<N>,
}

impl<'a, H: NativeCarrier, N: Native> RawMessage<'a, H, N> {
    /// Describes a message by its destination and its headers, if it has any.
    #[must_use]
    pub fn new(destination: &'a str, headers: impl Into<Option<&'a H::Read>>) -> Self {
        Self {
            destination,
            headers: NativeExtractor::new(headers),
            id: None,
            correlation_id: None,
            reply_to: None,
            body_size: 0,
            sent_at: None,
            attempt: 1,
            native: None,
        }
    }

    /// Returns the value of a header that counts.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.find(name)
    }

    /// Returns it as the engine takes it.
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming {
            id: self.id.as_deref(),
            correlation_id: self.correlation_id.as_deref(),
            reply_to: self.reply_to,
            body_size: self.body_size,
            sent_at: self.sent_at,
            attempt: self.attempt.max(1),
            native: self.native.as_ref().map(|native| native as &dyn Native),
            ..Incoming::new(self.destination, &self.headers)
        }
    }
}

impl<H: NativeCarrier, N> std::fmt::Debug for RawMessage<'_, H, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawMessage")
            .field("destination", &self.destination)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

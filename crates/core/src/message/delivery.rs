use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use opentelemetry::KeyValue;

use super::{Destination, Extensions, Headers, OperationType, Source};

/// Is what only the adapter knows about a received message; the broker's own extractors read it by downcast.
///
/// # Examples
///
/// ```
/// use opentelemetry::KeyValue;
/// use throughline_core::message::{Native, OperationType};
///
/// struct Record { offset: i64 }
///
/// impl Native for Record {
///     fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
///         attributes.push(KeyValue::new("messaging.kafka.offset", self.offset));
///     }
/// }
/// ```
pub trait Native: Any + Send + Sync {
    /// Returns the name for telemetry where it differs from the delivery's destination, as on RabbitMQ (ATTR-R-02).
    fn destination(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Adds the attributes of this single message for a span of that type; in a batch those that differ go on the links (LINK-15).
    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        let _ = (operation, attributes);
    }
}

/// Is a message that arrived, or a batch of them.
///
/// A batch is a delivery whose [`messages`](Self::messages) are several; its own payload and headers are empty.
/// Middleware treats both alike. Cloning is cheap: the payload is shared.
///
/// # Examples
///
/// ```
/// use throughline_core::Delivery;
///
/// let delivery = Delivery::new("orders.placed", "{}");
/// assert_eq!(delivery.destination(), "orders.placed");
/// assert_eq!(delivery.attempt(), 1);
/// ```
#[derive(Clone)]
pub struct Delivery {
    destination: Arc<str>,
    payload: Bytes,
    headers: Headers,
    key: Option<Bytes>,
    id: Option<Arc<str>>,
    correlation_id: Option<Arc<str>>,
    reply_to: Option<Destination>,
    attempt: u32,
    sent_at: Option<SystemTime>,
    native: Option<Arc<dyn Native>>,
    source: Option<Arc<Source>>,
    runtime: Option<Arc<dyn Any + Send + Sync>>,
    extensions: Extensions,
    batch: Option<Arc<[Delivery]>>,
}

impl Delivery {
    /// Creates a delivery from the name it was sent to and its body.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").payload().as_ref(), b"x");
    /// ```
    #[must_use]
    pub fn new(destination: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Self {
            destination: destination.into(),
            payload: payload.into(),
            headers: Headers::new(),
            key: None,
            id: None,
            correlation_id: None,
            reply_to: None,
            attempt: 1,
            sent_at: None,
            native: None,
            source: None,
            runtime: None,
            extensions: Extensions::default(),
            batch: None,
        }
    }

    /// Creates a batch. Its destination is the one all messages share, else empty.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Delivery;
    /// let batch = Delivery::batch(vec![Delivery::new("orders", "a"), Delivery::new("orders", "b")]);
    /// assert_eq!((batch.destination(), batch.messages().len()), ("orders", 2));
    /// ```
    #[must_use]
    pub fn batch(messages: Vec<Self>) -> Self {
        let shared = messages.first().map(|first| Arc::clone(&first.destination));
        let shared = shared.filter(|name| messages.iter().all(|message| message.destination == *name));
        let mut whole = Self::new(shared.unwrap_or_else(|| Arc::from("")), Bytes::new());
        whole.source = messages.first().and_then(|first| first.source.clone());
        whole.runtime = messages.first().and_then(|first| first.runtime.clone());
        whole.attempt = messages.iter().map(|message| message.attempt).max().unwrap_or(1);
        whole.batch = Some(messages.into());
        whole
    }

    /// Sets the headers.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Headers};
    /// let delivery = Delivery::new("orders", "x").with_headers(Headers::from_iter([("tenant", "acme")]));
    /// assert_eq!(delivery.headers().get("tenant"), Some("acme"));
    /// ```
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the key.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").with_key("42").key().is_some());
    /// ```
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the message id.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").with_id("m1").id(), Some("m1"));
    /// ```
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the correlation id.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").with_correlation_id("c").correlation_id(), Some("c"));
    /// ```
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets where the sender expects an answer.
    ///
    /// # Examples
    ///
    /// ```
    /// let delivery = throughline_core::Delivery::new("prices.get", "x").with_reply_to("_INBOX.1");
    /// assert_eq!(delivery.reply_to().unwrap().name(), "_INBOX.1");
    /// ```
    #[must_use]
    pub fn with_reply_to(mut self, destination: impl Into<Destination>) -> Self {
        self.reply_to = Some(destination.into());
        self
    }

    /// Sets which delivery of the message this is, counted from 1.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").with_attempt(2).attempt(), 2);
    /// ```
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt.max(1);
        self
    }

    /// Sets when the broker took the message, for the queue-time metric.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::SystemTime;
    /// assert!(throughline_core::Delivery::new("orders", "x").with_sent_at(SystemTime::now()).sent_at().is_some());
    /// ```
    #[must_use]
    pub const fn with_sent_at(mut self, time: SystemTime) -> Self {
        self.sent_at = Some(time);
        self
    }

    /// Attaches what only the adapter knows.
    ///
    /// # Examples
    ///
    /// ```
    /// struct Offset(i64);
    /// impl throughline_core::message::Native for Offset {}
    /// let delivery = throughline_core::Delivery::new("orders", "x").with_native(std::sync::Arc::new(Offset(3)));
    /// assert_eq!(delivery.native::<Offset>().unwrap().0, 3);
    /// ```
    #[must_use]
    pub fn with_native(mut self, native: Arc<dyn Native>) -> Self {
        self.native = Some(native);
        self
    }

    /// Replaces the body, for middleware that decompresses or decrypts.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").with_payload("y").payload().as_ref(), b"y");
    /// ```
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Replaces the messages of a batch one by one; a single delivery is passed through `change` itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Delivery;
    /// let batch = Delivery::batch(vec![Delivery::new("orders", "a")]).map_messages(|m| m.with_payload("b"));
    /// assert_eq!(batch.messages()[0].payload().as_ref(), b"b");
    /// ```
    #[must_use]
    pub fn map_messages(mut self, mut change: impl FnMut(Self) -> Self) -> Self {
        match self.batch.take() {
            None => change(self),
            Some(messages) => {
                self.batch = Some(messages.iter().cloned().map(change).collect());
                self
            }
        }
    }

    pub(crate) fn retain_messages(mut self, wanted: &[bool]) -> Self {
        if let Some(messages) = self.batch.take() {
            let kept = messages.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(message, _)| message.clone());
            self.batch = Some(kept.collect());
        }
        self
    }

    /// Stores a value for later middleware and the handler.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut delivery = throughline_core::Delivery::new("orders", "x");
    /// delivery.insert_extension(7_u8);
    /// assert_eq!(delivery.extension::<u8>(), Some(&7));
    /// ```
    pub fn insert_extension<T: Any + Send + Sync>(&mut self, value: T) {
        self.extensions.insert(value);
    }

    /// Returns a value stored by middleware.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").extension::<u8>().is_none());
    /// ```
    #[must_use]
    pub fn extension<T: Any>(&self) -> Option<&T> {
        self.extensions.get()
    }

    /// Returns the name the message was sent to; of a batch, the one all its messages share, else the empty string.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").destination(), "orders");
    /// ```
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Returns the body; empty for a batch.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").payload().len(), 1);
    /// ```
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Returns the headers; empty for a batch.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").headers().is_empty());
    /// ```
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the key.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").key().is_none());
    /// ```
    #[must_use]
    pub const fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// Returns the message id.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").id().is_none());
    /// ```
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the correlation id.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").correlation_id().is_none());
    /// ```
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_deref()
    }

    /// Returns where the sender expects an answer.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").reply_to().is_none());
    /// ```
    #[must_use]
    pub const fn reply_to(&self) -> Option<&Destination> {
        self.reply_to.as_ref()
    }

    /// Returns which delivery of the message this is, counted from 1; of a batch, the highest of its messages.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").attempt(), 1);
    /// ```
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns when the broker took the message, where the broker says so.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").sent_at().is_none());
    /// ```
    #[must_use]
    pub const fn sent_at(&self) -> Option<SystemTime> {
        self.sent_at
    }

    /// Returns what the adapter attached, if it is a `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// struct Offset;
    /// impl throughline_core::message::Native for Offset {}
    /// assert!(throughline_core::Delivery::new("orders", "x").native::<Offset>().is_none());
    /// ```
    #[must_use]
    pub fn native<T: Native>(&self) -> Option<&T> {
        let native: &dyn Any = self.native.as_deref()?;
        native.downcast_ref()
    }

    /// Tells whether this is a batch, also one of a single message.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!throughline_core::Delivery::new("orders", "x").is_batch());
    /// ```
    #[must_use]
    pub const fn is_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Returns the messages: those of the batch, or this one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Delivery::new("orders", "x").messages().len(), 1);
    /// ```
    #[must_use]
    pub fn messages(&self) -> &[Self] {
        self.batch.as_deref().unwrap_or(std::slice::from_ref(self))
    }

    /// Returns the description of the subscription that received the message, for telemetry.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").source().is_none());
    /// ```
    #[must_use]
    pub const fn source(&self) -> Option<&Arc<Source>> {
        self.source.as_ref()
    }

    pub(crate) fn set_source(&mut self, source: Arc<Source>) {
        self.source = Some(source);
    }

    /// What serves the subscription; the extractors of the rooms above read it by downcast.
    pub(crate) fn runtime<T: Any>(&self) -> Option<&T> {
        self.runtime.as_deref()?.downcast_ref()
    }

    pub(crate) fn set_runtime(&mut self, runtime: Arc<dyn Any + Send + Sync>) {
        self.runtime = Some(runtime);
    }

    pub(crate) fn native_dyn(&self) -> Option<&dyn Native> {
        self.native.as_deref()
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("destination", &self.destination)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("headers", &self.headers)
            .field("attempt", &self.attempt)
            .field("batch", &self.batch.as_ref().map(|messages| messages.len()))
            .finish_non_exhaustive()
    }
}

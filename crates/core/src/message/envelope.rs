use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::trace::SpanContext;

use super::properties::Properties;
use super::{Delivery, Destination, Headers, Native};

/// The header under which the content type travels where the broker has no place of its own for it.
pub(super) const CONTENT_TYPE: &str = "content-type";

/// A message on its way out, or a batch of them.
///
/// # Examples
///
/// ```
/// use throughline_core::Envelope;
///
/// let envelope = Envelope::new("orders.placed", "{}").with_key("42").with_header("source", "web");
/// assert_eq!(envelope.destination().name(), "orders.placed");
/// assert_eq!(envelope.headers().get("source"), Some("web"));
/// ```
#[derive(Clone)]
pub struct Envelope {
    destination: Destination,
    payload: Bytes,
    headers: Headers,
    content_type: Option<Cow<'static, str>>,
    is_unaddressed: bool,
    properties: Option<Box<Properties>>,
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Default)]
struct Rare {
    native: Option<Arc<dyn Any + Send + Sync>>,
    creation: CreationContext,
    /// What the broker knows about the message that this one forwards.
    origin: Option<Arc<dyn Native>>,
    batch: Vec<Envelope>,
    is_error_reply: bool,
}

/// Where the creation context of a message comes from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum CreationContext {
    /// The framework makes one when the message is published.
    #[default]
    New,
    /// The caller gave one; it is written instead of a new one.
    Given(SpanContext),
    /// The headers hold one already and stay as they are; where they hold none, one is made.
    Kept,
}

pub(crate) struct TelemetryParts<'a> {
    pub(crate) headers: &'a mut Headers,
    pub(crate) id: Option<&'a str>,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) body_size: usize,
    pub(crate) creation: CreationContext,
}

impl Envelope {
    /// Creates a message from its destination and body.
    ///
    /// # Examples
    ///
    /// ```
    /// let envelope = throughline_core::Envelope::new("orders", "hello");
    /// assert_eq!(envelope.payload().as_ref(), b"hello");
    /// ```
    #[must_use]
    pub fn new(destination: impl Into<Destination>, payload: impl Into<Bytes>) -> Self {
        Self {
            destination: destination.into(),
            payload: payload.into(),
            headers: Headers::new(),
            content_type: None,
            is_unaddressed: false,
            properties: None,
            rare: None,
        }
    }

    /// Creates a reply that has no destination yet: it goes where the subscription's `reply_to` says, and to the requester.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!throughline_core::Envelope::unaddressed("hello").is_addressed());
    /// ```
    #[must_use]
    pub fn unaddressed(payload: impl Into<Bytes>) -> Self {
        Self::new(Destination::from_static(""), payload).without_destination()
    }

    /// Creates a batch for one destination; the middleware sees it as one envelope.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Envelope;
    /// let batch = Envelope::batch("orders", [Envelope::unaddressed("a"), Envelope::unaddressed("b")]);
    /// assert_eq!(batch.messages().len(), 2);
    /// ```
    #[must_use]
    pub fn batch(destination: impl Into<Destination>, messages: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::new(destination, Bytes::new());
        let mut batch: Vec<Self> = messages.into_iter().collect();
        if !batch.is_empty() {
            batch.iter_mut().for_each(|message| message.destination = whole.destination.clone());
            whole.rare_mut().batch = batch;
        }
        whole
    }

    /// Forwards a received message unchanged: body and headers stay, with the context they carry.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Envelope};
    /// let dead = Envelope::forward(&Delivery::new("orders", "x"), "orders.dead");
    /// assert_eq!(dead.payload().as_ref(), b"x");
    /// ```
    #[must_use]
    pub fn forward(delivery: &Delivery, destination: impl Into<Destination>) -> Self {
        let mut envelope = Self::new(destination, delivery.payload().clone());
        envelope.headers = delivery.headers().clone();
        envelope.properties =
            delivery.properties().map(|properties| Box::new(Properties { reply_to: None, ..properties.clone() }));
        let rare = envelope.rare_mut();
        rare.creation = CreationContext::Kept;
        rare.origin = delivery.native_shared();
        rare.native = rare.origin.as_deref().and_then(Native::forwarded);
        envelope
    }

    /// Replaces the destination.
    ///
    /// # Examples
    ///
    /// ```
    /// let envelope = throughline_core::Envelope::unaddressed("x").with_destination("orders");
    /// assert!(envelope.is_addressed());
    /// ```
    #[must_use]
    pub fn with_destination(mut self, destination: impl Into<Destination>) -> Self {
        self.destination = destination.into();
        self.is_unaddressed = false;
        if let Some(rare) = &mut self.rare {
            rare.batch.iter_mut().for_each(|message| message.destination = self.destination.clone());
        }
        self
    }

    /// Sets a header in place of an earlier one of that name; of a batch, on each message.
    ///
    /// # Examples
    ///
    /// ```
    /// let envelope = throughline_core::Envelope::new("orders", "x").with_header("audited", "yes");
    /// assert_eq!(envelope.headers().get("audited"), Some("yes"));
    /// ```
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.each_mut(|message| message.headers.insert(name.clone(), value.clone()));
        self
    }

    /// Sets the key: what decides about the partition and the order, for brokers that have one.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        let key = key.into();
        self.each_mut(|message| message.properties_mut().key = Some(key.clone()));
        self
    }

    /// Sets the message id (`messaging.message.id`); brokers that know one use it to drop duplicates.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.properties_mut().id = Some(id.into());
        self
    }

    /// Sets the correlation id (`messaging.message.conversation_id`).
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<Arc<str>>) -> Self {
        let id = id.into();
        self.each_mut(|message| message.properties_mut().correlation_id = Some(Arc::clone(&id)));
        self
    }

    /// Sets the media type of the body.
    ///
    /// # Examples
    ///
    /// ```
    /// let envelope = throughline_core::Envelope::new("orders", "{}").with_content_type("application/json");
    /// assert_eq!(envelope.content_type(), Some("application/json"));
    /// ```
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets where an answer is expected.
    #[must_use]
    pub fn with_reply_to(mut self, destination: impl Into<Destination>) -> Self {
        self.properties_mut().reply_to = Some(destination.into());
        self
    }

    /// Attaches the message's own properties in the terms of one broker, such as the partition of a Kafka record. Other brokers leave
    /// them out. On a batch, each message gets them.
    ///
    /// # Examples
    ///
    /// ```
    /// struct Priority(u8);
    ///
    /// let envelope = throughline_core::Envelope::new("orders", "x").with_native(Priority(5));
    /// assert_eq!(envelope.native::<Priority>().unwrap().0, 5);
    /// ```
    #[must_use]
    pub fn with_native<T: Any + Send + Sync>(mut self, native: T) -> Self {
        let native: Arc<dyn Any + Send + Sync> = Arc::new(native);
        self.each_mut(|message| message.rare_mut().native = Some(Arc::clone(&native)));
        self
    }

    /// Gives the message a creation context of the caller's; no create span is made for it, and its send span links to it.
    #[must_use]
    pub fn with_creation_context(mut self, context: SpanContext) -> Self {
        self.rare_mut().creation = CreationContext::Given(context);
        self
    }

    /// Replaces the body.
    ///
    /// # Examples
    ///
    /// ```
    /// let envelope = throughline_core::Envelope::new("orders", "x").with_payload("y");
    /// assert_eq!(envelope.payload().as_ref(), b"y");
    /// ```
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        if let Some(properties) = &mut self.properties {
            properties.has_no_payload = false;
        }
        self
    }

    /// Takes the body away: the message then has none, where the broker tells that from an empty one (a tombstone). To
    /// any other broker the body is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Envelope;
    /// assert!(!Envelope::new("users", "").without_payload().has_payload());
    /// ```
    #[must_use]
    pub fn without_payload(mut self) -> Self {
        self.payload = Bytes::new();
        self.properties_mut().has_no_payload = true;
        self
    }

    pub(crate) const fn without_destination(mut self) -> Self {
        self.is_unaddressed = true;
        self
    }

    fn each_mut(&mut self, mut change: impl FnMut(&mut Self)) {
        match self.batch_mut() {
            Some(batch) => batch.iter_mut().for_each(change),
            None => change(self),
        }
    }

    fn properties_mut(&mut self) -> &mut Properties {
        self.properties.get_or_insert_default()
    }

    /// Marks it as the framework's word that a request failed.
    pub(crate) fn into_error_reply(mut self) -> Self {
        self.rare_mut().is_error_reply = true;
        self
    }

    /// Tells whether the framework says with it that a request failed. An adapter that passes on no headers of such names takes those of
    /// [`error_reply_headers`](crate::broker::Publish::error_reply_headers) from this message alone.
    #[must_use]
    pub fn is_error_reply(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_error_reply)
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn batch_mut(&mut self) -> Option<&mut Vec<Self>> {
        self.rare.as_mut().map(|rare| &mut rare.batch).filter(|batch| !batch.is_empty())
    }

    /// Returns the destination.
    #[must_use]
    pub const fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Tells whether the message has a destination.
    #[must_use]
    pub fn is_addressed(&self) -> bool {
        !self.is_unaddressed
    }

    /// Returns the body; empty for a batch.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Tells whether the message has a body, if only an empty one; see [`without_payload`](Self::without_payload).
    #[must_use]
    pub fn has_payload(&self) -> bool {
        self.properties.as_ref().is_none_or(|properties| !properties.has_no_payload)
    }

    /// Returns the headers; empty for a batch.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the headers for a change; use [`with_header`](Self::with_header) for one that works on batches too.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut envelope = throughline_core::Envelope::new("orders", "x");
    /// envelope.headers_mut().append("tag", "a");
    /// ```
    pub const fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.properties.as_ref()?.key.as_ref()
    }

    /// Returns the message id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.properties.as_ref()?.id.as_deref()
    }

    /// Returns the correlation id.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.properties.as_ref()?.correlation_id.as_deref()
    }

    /// Returns the media type of the body.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Returns where an answer is expected.
    #[must_use]
    pub fn reply_to(&self) -> Option<&Destination> {
        self.properties.as_ref()?.reply_to.as_ref()
    }

    /// Tells whether this is a batch.
    #[inline]
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.batch.is_empty())
    }

    /// Returns the messages: those of the batch, or this one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Envelope::new("orders", "x").messages().len(), 1);
    /// ```
    #[must_use]
    pub fn messages(&self) -> &[Self] {
        match &self.rare {
            Some(rare) if !rare.batch.is_empty() => &rare.batch,
            _ => std::slice::from_ref(self),
        }
    }

    /// Returns the messages for a change: those of the batch, or this one.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut envelope = throughline_core::Envelope::new("orders", "x");
    /// for message in envelope.messages_mut() {
    ///     message.headers_mut().insert("audited", "yes");
    /// }
    /// ```
    pub fn messages_mut(&mut self) -> &mut [Self] {
        if self.is_batch() {
            return self.batch_mut().map_or(&mut [], Vec::as_mut_slice);
        }
        std::slice::from_mut(self)
    }

    /// Returns the message's own properties in the terms of one broker, if they are a `T`.
    #[must_use]
    pub fn native<T: Any>(&self) -> Option<&T> {
        self.rare.as_ref()?.native.as_deref()?.downcast_ref()
    }

    /// Returns what only the broker knows about the message that this one forwards; `None` where it forwards none, or one of
    /// another broker. An adapter tells by it which delivery a forward belongs to.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::message::Native;
    /// use throughline_core::{Delivery, Envelope};
    ///
    /// struct Offset(i64);
    ///
    /// impl Native for Offset {}
    ///
    /// let delivery = Delivery::new("orders", "x").with_native(std::sync::Arc::new(Offset(3)));
    /// assert_eq!(Envelope::forward(&delivery, "orders.dead").origin::<Offset>().unwrap().0, 3);
    /// assert!(Envelope::new("orders", "x").origin::<Offset>().is_none());
    /// ```
    #[must_use]
    pub fn origin<T: Native>(&self) -> Option<&T> {
        let origin: &dyn Any = self.rare.as_ref()?.origin.as_deref()?;
        origin.downcast_ref()
    }

    /// Tells whether this is a received message on its way to another destination, with its headers as they were.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| matches!(rare.creation, CreationContext::Kept))
    }

    pub(crate) fn into_messages(mut self) -> Vec<Self> {
        match self.batch_mut().map(std::mem::take) {
            Some(batch) => batch,
            None => vec![self],
        }
    }

    /// Takes apart what arrives as it left: name, body, headers with the content type among them, and properties.
    #[inline]
    pub(super) fn into_arriving(mut self) -> (Destination, Bytes, Headers, Option<Box<Properties>>) {
        if let Some(content_type) = self.content_type
            && !self.headers.contains(CONTENT_TYPE)
        {
            let content_type = match content_type {
                Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Cow::Owned(text) => Bytes::from(text),
            };
            self.headers.append(CONTENT_TYPE, content_type);
        }
        (self.destination, self.payload, self.headers, self.properties)
    }

    /// The parts telemetry reads, with the headers for writing.
    pub(crate) fn telemetry_parts(&mut self) -> TelemetryParts<'_> {
        TelemetryParts {
            headers: &mut self.headers,
            id: self.properties.as_ref().and_then(|properties| properties.id.as_deref()),
            correlation_id: self.properties.as_ref().and_then(|properties| properties.correlation_id.as_deref()),
            body_size: self.payload.len(),
            creation: self.rare.as_ref().map_or(CreationContext::New, |rare| rare.creation.clone()),
        }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("destination", &self.destination)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("headers", &self.headers)
            .field("batch", &self.rare.as_ref().map_or(0, |rare| rare.batch.len()))
            .finish_non_exhaustive()
    }
}

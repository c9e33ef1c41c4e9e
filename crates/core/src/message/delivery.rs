use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use opentelemetry::propagation::Extractor;

use super::destination::Name;
use super::envelope::CONTENT_TYPE;
use super::properties::Properties;
use super::{Destination, Envelope, Extensions, Headers, Native, Source, header_text};

/// A message that arrived, or a batch of them.
///
/// A batch is a delivery whose [`messages`](Self::messages) are several; its own payload and headers are empty.
/// Middleware treats both alike. Cloning is cheap: what arrived is shared, and copied where a clone is changed.
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
pub struct Delivery {
    message: Arc<Message>,
    runtime: Option<Arc<Runtime>>,
    /// What telemetry keeps for the message, without its type: this room does not know it.
    surroundings: OnceLock<Surroundings>,
    /// Whether somebody has a copy, and may ask for the surroundings later.
    is_copied: AtomicBool,
    extensions: Extensions,
    attempt: u32,
    is_last_attempt: bool,
    is_request: bool,
}

/// Why there is another attempt at a message.
struct RetryCause(Option<Arc<str>>);

/// What arrived, which seldom changes afterwards.
#[derive(Clone)]
struct Message {
    destination: Name,
    payload: Bytes,
    /// What the native part has of them is copied when somebody asks.
    headers: OnceLock<Headers>,
    properties: Option<Box<Properties>>,
    sent_at: Option<SystemTime>,
    native: Option<Arc<dyn Native>>,
    batch: Option<Arc<[Delivery]>>,
}

/// What serves a subscription, the same for all of its deliveries.
pub(crate) struct Runtime {
    /// The engine of telemetry, where the app has one; without its type, since this room does not know it.
    pub(crate) telemetry: Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) source: Arc<Source>,
    /// For the extractors of the rooms above, which read it by downcast.
    pub(crate) services: Box<dyn Any + Send + Sync>,
}

/// What telemetry keeps for a message while it is handled.
pub(crate) type Surroundings = Arc<dyn Any + Send + Sync>;

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
        Self::of(Message {
            destination: Name::Shared(destination.into()),
            payload: payload.into(),
            headers: OnceLock::new(),
            properties: None,
            sent_at: None,
            native: None,
            batch: None,
        })
    }

    /// Creates a delivery of what somebody published, or of what an adapter gathered in an envelope, in one step and without a
    /// copy. A content type becomes the header `content-type`, unless there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Envelope};
    /// let delivery = Delivery::from_envelope(Envelope::new("orders", "x").with_id("m1"), None, None);
    /// assert_eq!((delivery.destination(), delivery.id()), ("orders", Some("m1")));
    /// ```
    #[inline]
    #[must_use]
    pub fn from_envelope(envelope: Envelope, sent_at: Option<SystemTime>, native: Option<Arc<dyn Native>>) -> Self {
        let (destination, payload, headers, mut properties) = envelope.into_arriving();
        if let Some(address) = properties.as_mut().and_then(|properties| properties.reply_to.as_mut()) {
            address.mark_temporary();
        }
        Self::of(Message {
            destination: destination.into_name(),
            payload,
            headers: OnceLock::from(headers),
            properties,
            sent_at,
            native,
            batch: None,
        })
    }

    #[inline]
    fn of(message: Message) -> Self {
        Self {
            message: Arc::new(message),
            runtime: None,
            surroundings: OnceLock::new(),
            is_copied: AtomicBool::new(false),
            extensions: Extensions::default(),
            attempt: 1,
            is_last_attempt: false,
            is_request: false,
        }
    }

    fn message_mut(&mut self) -> &mut Message {
        Arc::make_mut(&mut self.message)
    }

    fn properties_mut(&mut self) -> &mut Properties {
        self.message_mut().properties.get_or_insert_default()
    }

    pub(super) fn properties(&self) -> Option<&Properties> {
        self.message.properties.as_deref()
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
        let shared = messages.first().map(|first| &first.message.destination);
        let shared = shared.filter(|name| messages.iter().all(|message| message.destination() == name.as_str()));
        let destination = shared.cloned().unwrap_or(Name::Fixed(""));
        let runtime = messages.first().and_then(|first| first.runtime.clone());
        let attempt = messages.iter().map(|message| message.attempt).max().unwrap_or(1);
        let is_last_attempt = messages.iter().any(|message| message.is_last_attempt);
        let batch = Message {
            destination,
            payload: Bytes::new(),
            headers: OnceLock::new(),
            properties: None,
            sent_at: None,
            native: None,
            batch: Some(messages.into()),
        };
        Self { runtime, attempt, is_last_attempt, ..Self::of(batch) }
    }

    /// Sets the headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.message_mut().headers = OnceLock::from(headers);
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.properties_mut().key = Some(key.into());
        self
    }

    /// Sets the message id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.properties_mut().id = Some(id.into());
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.properties_mut().correlation_id = Some(id.into());
        self
    }

    /// Sets where the sender expects an answer.
    #[must_use]
    pub fn with_reply_to(mut self, destination: impl Into<Destination>) -> Self {
        self.properties_mut().reply_to = Some(destination.into().temporary());
        self
    }

    /// Sets which delivery of the message this is, counted from 1.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt.max(1);
        self
    }

    /// Sets why there is another attempt: the `error.type` of the one before, where the adapter knows it.
    ///
    /// # Examples
    ///
    /// ```
    /// let delivery = throughline_core::Delivery::new("orders", "x").with_attempt(2).with_retry_cause("timeout");
    /// assert_eq!(delivery.retry_cause(), Some("timeout"));
    /// ```
    #[must_use]
    pub fn with_retry_cause(mut self, error_type: impl Into<Arc<str>>) -> Self {
        self.extensions.insert(RetryCause(Some(error_type.into())));
        self
    }

    /// Says that the broker delivers the message no more after this, because of a limit of its own. A failure is then final: the
    /// message goes to the dead letter, or is rejected, in place of another attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Delivery::new("orders", "x").with_attempt(3).with_last_attempt().is_last_attempt());
    /// ```
    #[must_use]
    pub const fn with_last_attempt(mut self) -> Self {
        self.is_last_attempt = true;
        self
    }

    /// Says that the sender waits for the answer, and not for long, as in a request of the broker's own. An adapter says so of messages
    /// with such a reply address. By default they are handled at the same time, and tried once: their requester gets an error at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Delivery;
    /// let delivery = Delivery::new("prices.get", "bread").with_reply_to("_INBOX.7").with_waiting_requester();
    /// assert!(delivery.is_request());
    /// ```
    #[must_use]
    pub const fn with_waiting_requester(mut self) -> Self {
        self.is_request = true;
        self
    }

    /// Sets when the broker took the message, for the queue-time metric.
    #[must_use]
    pub fn with_sent_at(mut self, time: SystemTime) -> Self {
        self.message_mut().sent_at = Some(time);
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
        self.message_mut().native = Some(native);
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
        let message = self.message_mut();
        message.payload = payload.into();
        if let Some(properties) = &mut message.properties {
            properties.has_no_payload = false;
        }
        self
    }

    /// Takes the body away: the message then has none, which some brokers tell from an empty one (a tombstone).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Envelope};
    /// let deleted = Delivery::new("users", "").without_payload();
    /// assert!(!Envelope::forward(&deleted, "users.copy").has_payload());
    /// ```
    #[must_use]
    pub fn without_payload(mut self) -> Self {
        self.message_mut().payload = Bytes::new();
        self.properties_mut().has_no_payload = true;
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
        match &self.message.batch {
            None => change(self),
            Some(messages) => {
                let messages = messages.iter().cloned().map(change).collect();
                self.message_mut().batch = Some(messages);
                self
            }
        }
    }

    pub(crate) fn retain_messages(mut self, wanted: &[bool]) -> Self {
        if let Some(messages) = &self.message.batch {
            let kept = messages.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(message, _)| message.clone());
            let kept = kept.collect();
            self.message_mut().batch = Some(kept);
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
    #[must_use]
    pub fn extension<T: Any>(&self) -> Option<&T> {
        self.extensions.get()
    }

    /// Returns the name the message was sent to; of a batch, the one all its messages share, else the empty string.
    #[must_use]
    pub fn destination(&self) -> &str {
        self.message.destination.as_str()
    }

    /// Returns the body; empty for a batch.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// Tells whether the message has a body, if only an empty one. Without one its payload is empty too.
    #[must_use]
    pub fn has_payload(&self) -> bool {
        self.properties().is_none_or(|properties| !properties.has_no_payload)
    }

    /// Returns the headers; empty for a batch. Where the adapter left them in the client's message, the first call copies them.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        let native = || self.native_dyn().and_then(Native::headers);
        self.message.headers.get_or_init(|| native().map(|headers| headers.to_headers()).unwrap_or_default())
    }

    /// The headers where they lie: to read a few of them needs no copy.
    pub(crate) fn carrier(&self) -> &dyn Extractor {
        match (self.message.headers.get(), self.native_dyn().and_then(Native::headers)) {
            (None, Some(native)) => native.as_extractor(),
            _ => self.headers(),
        }
    }

    pub(crate) fn has_headers(&self) -> bool {
        match self.message.headers.get() {
            Some(headers) => !headers.is_empty(),
            None => self.native_dyn().and_then(Native::headers).is_some(),
        }
    }

    /// Returns a header's text without a copy of the others: the exact name first, else without regard to case. Of several headers
    /// with that name it is the one that counts on the broker; an empty one counts as absent.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Headers};
    /// let delivery = Delivery::new("orders", "x").with_headers(Headers::from_iter([("Tenant", "acme")]));
    /// assert_eq!(delivery.header("tenant"), Some("acme"));
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.carrier().get(name)
    }

    /// Returns a header's text as [`header`](Self::header) does, with the escape undone that the framework writes texts with; see
    /// [`header_text`](super::header_text).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Headers};
    /// let headers = Headers::from_iter([("dead-letter-reason", "UTF-8''kein%20K%C3%A4se")]);
    /// let dead = Delivery::new("orders.dead", "x").with_headers(headers);
    /// assert_eq!(dead.header_text("dead-letter-reason").as_deref(), Some("kein Käse"));
    /// ```
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header(name).map(header_text::unescape)
    }

    /// Returns the type of the body as its header says, such as `application/json`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.header(self.native_dyn().map_or(CONTENT_TYPE, Native::content_type_header))
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.properties()?.key.as_ref()
    }

    /// Returns the message id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.properties()?.id.as_deref()
    }

    /// Returns the correlation id.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.properties()?.correlation_id.as_deref()
    }

    /// Returns where the sender expects an answer.
    #[must_use]
    pub fn reply_to(&self) -> Option<&Destination> {
        self.properties()?.reply_to.as_ref()
    }

    /// Returns which delivery of the message this is, counted from 1; of a batch, the highest of its messages.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the `error.type` of the attempt before, where it is known: of attempts in place, and of a message that waited elsewhere. At
    /// the first attempt, and for a batch, it is `None`.
    #[must_use]
    pub fn retry_cause(&self) -> Option<&str> {
        // The first attempt is the rule, and asks nobody.
        if self.attempt == 1 {
            return None;
        }
        self.extension::<RetryCause>()?.0.as_deref()
    }

    /// Tells whether the broker delivers the message no more after this; of a batch, whether that is so for any of its messages.
    #[must_use]
    pub const fn is_last_attempt(&self) -> bool {
        self.is_last_attempt
    }

    /// Tells whether the sender waits for the answer, and not for long; false for a batch, whose messages say it each.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        self.is_request
    }

    /// Returns where the message lies on the broker, as a text for people; `None` where it lies nowhere once it was delivered.
    #[must_use]
    pub fn position(&self) -> Option<String> {
        self.native_dyn()?.position()
    }

    /// Returns when the broker took the message, where the broker says so.
    #[must_use]
    pub fn sent_at(&self) -> Option<SystemTime> {
        self.message.sent_at
    }

    /// Returns what the adapter attached, if it is a `T`.
    #[must_use]
    pub fn native<T: Native>(&self) -> Option<&T> {
        let native: &dyn Any = self.message.native.as_deref()?;
        native.downcast_ref()
    }

    /// Tells whether this is a batch, also one of a single message.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.message.batch.is_some()
    }

    /// Returns the messages: those of the batch, or this one.
    #[must_use]
    pub fn messages(&self) -> &[Self] {
        self.message.batch.as_deref().unwrap_or(std::slice::from_ref(self))
    }

    /// Returns the description of the subscription that received the message, for telemetry.
    #[must_use]
    pub fn source(&self) -> Option<&Arc<Source>> {
        self.runtime.as_ref().map(|runtime| &runtime.source)
    }

    /// What serves the subscription.
    pub(crate) fn service<T: Any>(&self) -> Option<&T> {
        self.runtime.as_ref()?.services.downcast_ref()
    }

    pub(crate) const fn count_attempt(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
    }

    /// Notes why there is another attempt; `None` where the handler decided so.
    pub(crate) fn set_retry_cause(&mut self, error_type: Option<&str>) {
        self.extensions.insert(RetryCause(error_type.map(Arc::from)));
    }

    /// The same at the next attempt; of a batch, each of its messages.
    pub(crate) fn next_attempt(mut self) -> Self {
        self.count_attempt();
        if !self.is_batch() {
            return self;
        }
        self.map_messages(|mut message| {
            message.count_attempt();
            message
        })
    }

    pub(crate) fn set_runtime(&mut self, runtime: Arc<Runtime>) {
        self.runtime = Some(runtime);
    }

    pub(crate) const fn surroundings(&self) -> &OnceLock<Surroundings> {
        &self.surroundings
    }

    pub(crate) fn set_surroundings(&mut self, surroundings: Surroundings) {
        self.surroundings = OnceLock::from(surroundings);
    }

    pub(crate) fn is_copied(&self) -> bool {
        self.is_copied.load(Ordering::Relaxed)
    }

    pub(crate) fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_deref()
    }

    pub(crate) fn native_shared(&self) -> Option<Arc<dyn Native>> {
        self.message.native.clone()
    }

    pub(crate) fn native_dyn(&self) -> Option<&dyn Native> {
        self.message.native.as_deref()
    }
}

impl Clone for Delivery {
    fn clone(&self) -> Self {
        self.is_copied.store(true, Ordering::Relaxed);
        Self {
            message: Arc::clone(&self.message),
            runtime: self.runtime.clone(),
            surroundings: self.surroundings.clone(),
            is_copied: AtomicBool::new(false),
            extensions: self.extensions.clone(),
            attempt: self.attempt,
            is_last_attempt: self.is_last_attempt,
            is_request: self.is_request,
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("destination", &self.destination())
            .field("payload", &format_args!("{} bytes", self.payload().len()))
            .field("headers", self.headers())
            .field("attempt", &self.attempt)
            .field("batch", &self.message.batch.as_ref().map(|messages| messages.len()))
            .finish_non_exhaustive()
    }
}

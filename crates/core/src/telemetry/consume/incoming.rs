use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;

use crate::guard::Foreign;
use crate::message::{Delivery, Destination, Native, OperationType};
use crate::telemetry::attributes::add_once;
use crate::telemetry::engine::Settings;
use crate::telemetry::semconv::{
    ATTEMPT, MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID, RETRY_CAUSE,
};

/// What the engine needs to know of one received message, borrowed from wherever it lives.
///
/// The framework makes one of each delivery; the raw-client functions of an adapter make one of the client's own message.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// use throughline_core::telemetry::Incoming;
///
/// let headers = HashMap::from([("traceparent".to_owned(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned())]);
/// let incoming = Incoming::new("orders", &headers);
/// assert_eq!(incoming.destination, "orders");
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Incoming<'a> {
    /// The concrete name the message was sent to.
    pub destination: &'a str,
    /// The headers.
    pub headers: &'a dyn Extractor,
    /// `messaging.message.id`.
    pub id: Option<&'a str>,
    /// `messaging.message.conversation_id`.
    pub correlation_id: Option<&'a str>,
    /// Where the answer is asked for.
    pub reply_to: Option<&'a str>,
    /// The body's length in bytes.
    pub body_size: usize,
    /// When the broker took the message.
    pub sent_at: Option<SystemTime>,
    /// Which delivery of the message this is, counted from 1.
    pub attempt: u32,
    /// The `error.type` of the attempt before, where it is known.
    pub retry_cause: Option<&'a str>,
    /// What only the adapter knows: further attributes of this single message, and the name to show for its destination.
    pub native: Option<&'a dyn Native>,
}

impl<'a> Incoming<'a> {
    /// Describes a message by its destination and headers alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use throughline_core::telemetry::Incoming;
    /// let headers: HashMap<String, String> = HashMap::new();
    /// assert!(Incoming::new("orders", &headers).id.is_none());
    /// ```
    #[must_use]
    pub fn new(destination: &'a str, headers: &'a dyn Extractor) -> Self {
        Self {
            destination,
            headers,
            id: None,
            correlation_id: None,
            reply_to: None,
            body_size: 0,
            sent_at: None,
            attempt: 1,
            retry_cause: None,
            native: None,
        }
    }

    /// Sets the message id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Option<&'a str>>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<Option<&'a str>>) -> Self {
        self.correlation_id = id.into();
        self
    }

    /// Sets where the answer is asked for.
    #[must_use]
    pub fn with_reply_to(mut self, address: impl Into<Option<&'a str>>) -> Self {
        self.reply_to = address.into();
        self
    }

    /// Sets the body's length in bytes.
    #[must_use]
    pub const fn with_body_size(mut self, bytes: usize) -> Self {
        self.body_size = bytes;
        self
    }

    /// Sets when the broker took the message.
    #[must_use]
    pub fn with_sent_at(mut self, time: impl Into<Option<SystemTime>>) -> Self {
        self.sent_at = time.into();
        self
    }

    /// Sets which delivery of the message this is, counted from 1; zero counts as one.
    #[must_use]
    pub const fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = if attempt == 0 { 1 } else { attempt };
        self
    }

    /// Sets what only the adapter knows.
    #[must_use]
    pub const fn with_native(mut self, native: &'a dyn Native) -> Self {
        self.native = Some(native);
        self
    }

    pub(crate) fn from_delivery(delivery: &'a Delivery) -> Self {
        Self {
            destination: delivery.destination(),
            headers: delivery.carrier(),
            id: delivery.id(),
            correlation_id: delivery.correlation_id(),
            reply_to: delivery.reply_to().map(Destination::name),
            body_size: delivery.payload().len(),
            sent_at: delivery.sent_at(),
            attempt: delivery.attempt(),
            retry_cause: delivery.retry_cause(),
            native: delivery.native_dyn(),
        }
    }

    /// The name of the destination that is shown: the adapter's own where it gives one, else the one the message was sent to.
    // ATTR-R-02.
    pub(super) fn name(&self, settings: &Settings) -> Cow<'a, str> {
        let native = self.native.and_then(|native| settings.guard.run(Foreign::Destination, || native.destination()));
        native.flatten().filter(|name| !name.is_empty()).unwrap_or(Cow::Borrowed(self.destination))
    }

    /// What the destination is within, as the adapter says.
    pub(super) fn namespace(&self, settings: &Settings) -> Option<&'a str> {
        self.native.and_then(|native| settings.guard.run(Foreign::Destination, || native.namespace())).flatten()
    }

    /// The attributes of one message of a batch: on its link, or on the span where all share them.
    // LINK-15.
    pub(super) fn attributes(&self, settings: &Settings, operation: OperationType) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        self.add_identity(settings, &mut |attribute| attributes.push(attribute));
        let own = attributes.len();
        for attribute in self.native_attributes(settings, operation) {
            add_once(&mut attributes, own, attribute);
        }
        if operation == OperationType::Process {
            self.add_attempt(&mut |attribute| add_once(&mut attributes, own, attribute));
            self.add_headers(settings, &mut |attribute| add_once(&mut attributes, own, attribute));
        }
        attributes
    }

    /// Adds which attempt this is, and why there is another one; nothing at the first.
    // ATTR-C-27, -28.
    pub(super) fn add_attempt(&self, set: &mut dyn FnMut(KeyValue)) {
        if self.attempt > 1 {
            set(KeyValue::new(ATTEMPT, i64::from(self.attempt)));
            if let Some(cause) = self.retry_cause {
                set(KeyValue::new(RETRY_CAUSE, cause.to_owned()));
            }
        }
    }

    /// What the adapter adds, without what the engine says itself; nothing when it panics.
    pub(super) fn native_attributes(&self, settings: &Settings, operation: OperationType) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        let Some(native) = self.native else { return attributes };
        if settings.guard.run(Foreign::Native, || native.attributes(operation, &mut attributes)).is_none() {
            attributes.clear();
        }
        attributes.retain(|attribute| {
            !settings.says(attribute.key.as_str(), self.id.is_some(), self.correlation_id.is_some())
        });
        attributes
    }

    pub(super) fn add_identity(&self, settings: &Settings, set: &mut dyn FnMut(KeyValue)) {
        if let Some(id) = self.id.filter(|_| settings.message_ids) {
            set(KeyValue::new(MESSAGING_MESSAGE_ID, id.to_owned()));
        }
        if let Some(id) = self.correlation_id.filter(|_| settings.conversation_ids) {
            set(KeyValue::new(MESSAGING_MESSAGE_CONVERSATION_ID, id.to_owned()));
        }
    }

    pub(super) fn add_body_size(&self, settings: &Settings, set: &mut dyn FnMut(KeyValue)) {
        if settings.body_sizes {
            let size = i64::try_from(self.body_size).unwrap_or(i64::MAX);
            set(KeyValue::new(MESSAGING_MESSAGE_BODY_SIZE, size));
        }
    }

    /// Adds the headers the user listed.
    // ATTR-C-24.
    pub(super) fn add_headers(&self, settings: &Settings, set: &mut dyn FnMut(KeyValue)) {
        for (name, attribute) in &settings.captured_headers {
            let value = settings.guard.run(Foreign::Extract, || self.headers.get(name)).flatten();
            if let Some(value) = value {
                set(KeyValue::new(attribute.clone(), value.to_owned()));
            }
        }
    }
}

use opentelemetry::KeyValue;

use crate::message::CreationContext;
use crate::propagation::Carrier;

/// What the engine needs to know of one message on its way out, borrowed from wherever it lives.
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// The headers.
    pub headers: &'a mut dyn Carrier,
    /// `messaging.message.id`.
    pub id: Option<&'a str>,
    /// `messaging.message.conversation_id`.
    pub correlation_id: Option<&'a str>,
    /// The body's length in bytes.
    pub body_size: usize,
    /// Further attributes of this single message, such as a key.
    pub attributes: Vec<KeyValue>,
    /// Where the creation context comes from.
    pub creation: CreationContext,
}

impl<'a> Outgoing<'a> {
    /// Describes a message by its headers alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Headers, telemetry::Outgoing};
    /// let mut headers = Headers::new();
    /// assert!(Outgoing::new(&mut headers).id.is_none());
    /// ```
    #[must_use]
    pub fn new(headers: &'a mut dyn Carrier) -> Self {
        Self {
            headers,
            id: None,
            correlation_id: None,
            body_size: 0,
            attributes: Vec::new(),
            creation: CreationContext::New,
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

    /// Sets the body's length in bytes.
    #[must_use]
    pub const fn with_body_size(mut self, bytes: usize) -> Self {
        self.body_size = bytes;
        self
    }

    /// Sets the further attributes of this single message.
    #[must_use]
    pub fn with_attributes(mut self, attributes: Vec<KeyValue>) -> Self {
        self.attributes = attributes;
        self
    }

    /// Sets where the creation context comes from.
    #[must_use]
    pub fn with_creation(mut self, creation: CreationContext) -> Self {
        self.creation = creation;
        self
    }
}

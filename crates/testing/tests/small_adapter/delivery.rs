use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use throughline_core::broker::{BoxFuture, Received, Settle, done};
use throughline_core::message::{Native, NativeHeaders, OperationType};
use throughline_core::{BrokerError, Delivery, Headers, Settlement};

use crate::carrier::{HeaderExtractor, to_headers};
use crate::client::Message;
use crate::{error, semconv};

/// The header with the message id.
pub(crate) const MESSAGE_ID: &str = "message-id";

/// The header with the correlation id.
pub(crate) const CORRELATION_ID: &str = "correlation-id";

/// The client's message, which the delivery keeps.
pub struct NativeMessage(Message);

impl NativeMessage {
    /// Wraps a message.
    #[must_use]
    pub const fn new(message: Message) -> Self {
        Self(message)
    }

    /// Returns the client's message.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.0
    }
}

impl Native for NativeMessage {
    fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
        attributes.push(number(&self.0));
    }

    fn headers(&self) -> Option<&dyn NativeHeaders> {
        (!self.0.headers.is_empty()).then_some(self as &dyn NativeHeaders)
    }

    fn position(&self) -> Option<String> {
        Some(format!("number {}", self.0.number))
    }
}

impl NativeHeaders for NativeMessage {
    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn to_headers(&self) -> Headers {
        to_headers(&self.0.headers)
    }
}

impl Extractor for NativeMessage {
    fn get(&self, key: &str) -> Option<&str> {
        HeaderExtractor::new(&self.0.headers).find(key)
    }

    fn keys(&self) -> Vec<&str> {
        HeaderExtractor::new(&self.0.headers).names()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        HeaderExtractor::new(&self.0.headers).find_all(key)
    }
}

/// Returns the attribute for the number of a message.
pub(crate) fn number(message: &Message) -> KeyValue {
    KeyValue::new(semconv::NUMBER, i64::try_from(message.number).unwrap_or(i64::MAX))
}

/// Makes a delivery. The body is shared with the client's message, and the headers stay there.
pub(crate) fn from_client(message: Message) -> Delivery {
    let headers = HeaderExtractor::new(&message.headers);
    let mut delivery = Delivery::new(message.subject.as_str(), message.payload.clone())
        .with_attempt(message.returned.saturating_add(1));
    if let Some(id) = headers.find(MESSAGE_ID) {
        delivery = delivery.with_id(id);
    }
    if let Some(id) = headers.find(CORRELATION_ID) {
        delivery = delivery.with_correlation_id(id);
    }
    if let Some(reply) = &message.reply {
        delivery = delivery.with_reply_to(reply).with_waiting_requester();
    }
    delivery.with_native(Arc::new(NativeMessage::new(message)))
}

/// Settles the messages of a subscription. It finds the client's message in the native part.
pub(crate) struct Settler;

impl Settle for Settler {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        match tell(message, settlement) {
            Ok(()) => done(),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    /// A message that was given up comes again at once.
    fn abandon(&self, message: &Received) {
        if let Err(error) = tell(message, &Settlement::retry()) {
            tracing::warn!(%error, "a message was not given back");
        }
    }
}

fn tell(message: &Received, settlement: &Settlement) -> Result<(), BrokerError> {
    let Some(NativeMessage(message)) = message.delivery.native() else { return Ok(()) };
    let told = match settlement {
        Settlement::Ack => message.ack(),
        Settlement::Reject { .. } => message.discard(),
        Settlement::Retry { after } => message.again(after.unwrap_or(Duration::ZERO)),
        // One that this adapter does not know yet: the message comes again, and the error says why.
        other => {
            message.again(Duration::ZERO).map_err(error::settle)?;
            return Err(error::unknown(other));
        }
    };
    told.map_err(error::settle)
}

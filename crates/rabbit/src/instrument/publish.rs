use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use throughline_core::PublishError;
use throughline_core::broker::{Pattern, PublishErrorKind};
use throughline_core::message::CreationContext;
use throughline_core::telemetry::{Outgoing, Sending};

use super::{Instrumentation, PublisherConfirm, RawClient};
use crate::carrier::{HeaderInjector, is_passed_on};
use crate::destination::Address;
use crate::error;
use crate::publish::{return_type, target};
use crate::semconv::target_name;

/// Publishing.
impl Instrumentation {
    /// Publishes a message, as the client does. Propagation headers among those of the properties are replaced; all other headers and
    /// properties stay as they are.
    ///
    /// On a channel with confirms (`confirm_select`) the span ends when the [`PublisherConfirm`] is done: with the error type `nack` where
    /// the server refused the message, and with `no-route` where it came back because no queue takes it, which the server tells of a
    /// `mandatory` message. On a channel without confirms the span ends when the client has taken the message.
    ///
    /// The client hands a returned message to the next confirmation that comes, which need not be that of the message: where many
    /// mandatory messages are under way at a time, the error may stand on the span of another one. Wait for each confirmation where that
    /// matters, or publish through [`Rabbit`](crate::Rabbit), which tells them apart. Tasks that share a channel get their own
    /// confirmations as long as all of them publish through clones of one instrumentation.
    ///
    /// # Errors
    ///
    /// Fails as the client does: where the channel is closed. A refusal of the server is in the confirmation, or closes the channel.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a dropped call may have published. Its span is a cancelled one.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
    /// use lapin::{BasicProperties, Channel};
    /// # async fn example(otel: throughline_rabbit::Instrumentation, channel: Channel) -> lapin::Result<()> {
    ///
    /// channel.confirm_select(ConfirmSelectOptions::default()).await?;
    /// let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    /// let properties = BasicProperties::default().with_delivery_mode(2);
    /// let confirm = otel.basic_publish(&channel, "shop".into(), "placed".into(), options, b"{}", properties).await?;
    /// println!("{:?}", confirm.await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn basic_publish(
        &self,
        channel: &Channel,
        exchange: ShortString,
        routing_key: ShortString,
        options: BasicPublishOptions,
        payload: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<PublisherConfirm> {
        let place = Place { exchange: exchange.clone(), key: routing_key.clone() };
        let (sending, properties) = self.start_publish(&place, payload.len(), properties);
        let published = channel.basic_publish(exchange, routing_key, options, payload, properties);
        match one_at_a_time(&self.reader().publishing, published).await {
            Ok(confirm) if channel.status().confirm() => Ok(PublisherConfirm::new(confirm, Some((sending, place)))),
            Ok(confirm) => {
                sending.finish(Vec::new(), None);
                Ok(PublisherConfirm::new(confirm, None))
            }
            Err(failed) => {
                sending.finish(Vec::new(), Some(&place.failed(&failed)));
                Err(failed)
            }
        }
    }

    /// Starts the span and writes the context into the headers.
    pub(super) fn start_publish(
        &self,
        place: &Place,
        body_size: usize,
        properties: BasicProperties,
    ) -> (Sending, BasicProperties) {
        let client = self.reader();
        let mut headers = self.headers_of(&properties);
        let mut injector = HeaderInjector::new(&mut headers);
        let message = Outgoing::new(&mut injector)
            .with_id(properties.message_id().as_ref().map(ShortString::as_str))
            .with_correlation_id(properties.correlation_id().as_ref().map(ShortString::as_str))
            .with_body_size(body_size)
            .with_creation(self.handle.creation().clone());
        let address = place.address();
        let sending = client.producer.send(&target(address, client.template(address)), message);
        let has_headers = properties.headers().is_some() || !headers.inner().is_empty();
        let properties = if has_headers { properties.with_headers(headers) } else { properties };
        (sending, properties)
    }

    /// Returns the headers as they are sent, but for the context. Of a message that is passed on, those stay here that are the server's or
    /// tell it where copies go: they were somebody else's.
    fn headers_of(&self, properties: &BasicProperties) -> FieldTable {
        let Some(headers) = properties.headers() else { return FieldTable::default() };
        if !matches!(self.handle.creation(), CreationContext::Kept) {
            return headers.clone();
        }
        let mut kept = FieldTable::default();
        for (name, value) in headers.into_iter().filter(|(name, _)| is_passed_on(name.as_str())) {
            kept.insert(name.clone(), value.clone());
        }
        kept
    }
}

impl RawClient {
    /// Returns what is shown in place of an address whose key is computed.
    // ATTR-R-10.
    fn template(&self, address: Address<'_>) -> Option<&str> {
        let is_of = |template: &&Pattern| {
            template.namespace().unwrap_or_default() == address.exchange && template.matches(address.key)
        };
        self.templates.iter().find(is_of).map(Pattern::shown)
    }
}

/// Lets the client take one message at a time, which it does when the call is polled first: it counts and writes under two locks, and
/// two tasks at a time would get the confirmations of each other.
pub(super) async fn one_at_a_time<F: Future>(turn: &Mutex<()>, publish: F) -> F::Output {
    let mut publish = pin!(publish);
    let first = poll_fn(|context| {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        Poll::Ready(publish.as_mut().poll(context))
    });
    match first.await {
        Poll::Ready(published) => published,
        Poll::Pending => publish.await,
    }
}

/// Where a message goes, as its errors name it.
pub(super) struct Place {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
}

impl Place {
    fn address(&self) -> Address<'_> {
        Address { exchange: self.exchange.as_str(), key: self.key.as_str() }
    }

    /// Returns why a message failed of which the server has told what became of it; `None` where it took the message.
    // ATTR-R-14.
    pub(super) fn refused(&self, confirmation: &Confirmation) -> Option<PublishError> {
        match confirmation {
            Confirmation::Nack(_) => {
                Some(self.error(PublishErrorKind::Unavailable, "nack", "a queue is full or has failed"))
            }
            Confirmation::Ack(Some(returned)) => Some(self.returned(returned)),
            Confirmation::Ack(None) | Confirmation::NotRequested => None,
        }
    }

    fn returned(&self, returned: &BasicReturnMessage) -> PublishError {
        let why = format!("it came back ({} {})", returned.reply_code, returned.reply_text);
        self.error(PublishErrorKind::NotFound, return_type(returned.reply_code), &why)
    }

    /// Returns why a message failed that the client did not send, or of which nothing was heard before its channel ended.
    pub(super) fn failed(&self, failed: &lapin::Error) -> PublishError {
        self.error(PublishErrorKind::Disconnected, error::error_type(failed), &error::told(failed))
    }

    fn error(
        &self,
        kind: PublishErrorKind,
        error_type: impl Into<std::borrow::Cow<'static, str>>,
        why: &str,
    ) -> PublishError {
        let name = target_name(self.exchange.as_str(), self.key.as_str());
        PublishError::new(kind, error_type, format!("the message to `{name}` was not taken: {why}"))
    }
}

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_nats::HeaderMap;
use async_nats::client::traits::Publisher as _;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::message::OutboundMessage;
use futures_util::FutureExt;
use throughline_core::broker::{Outbound, OutboundUse, PublishErrorKind};
use throughline_core::message::header_text;
use throughline_core::propagation::NativeCarrier;
use throughline_core::{Destination, Envelope, PublishError, Receipt};
use tokio::time::timeout;

use crate::altered::Altered;
use crate::carrier::{ClientHeaders, ERROR_REPLY, put, to_forwarded, to_native};
use crate::connection::Connection;
use crate::delivery::MESSAGE_ID;
use crate::destination::{Expected, Through};
use crate::header_names::Names;
use crate::link::Link;
use crate::{NativeMessage, Stream, error, forwarded, semconv};

/// What a stream answers to a message.
pub(crate) type Answer = Result<PublishAck, async_nats::jetstream::context::PublishError>;

/// Waits for that answer.
type Storage = <PublishAckFuture as IntoFuture>::IntoFuture;

/// A message that was sent.
pub(crate) enum Sent {
    /// The client has it, and nobody confirms more.
    Taken(async_nats::Subject),
    /// Its stream is to answer.
    Storing(Box<Storing>),
}

/// A message that its stream has not confirmed yet.
pub(crate) struct Storing {
    subject: async_nats::Subject,
    pub(crate) answer: Storage,
}

/// Publishes on one connection: to core NATS, or to streams.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) connection: Arc<Connection>,
    /// Whether a plain destination is a stream's subject.
    pub(crate) to_streams: bool,
}

impl Sender {
    /// Says which way a message goes. A request's reply goes to an inbox, which no stream has. What is forwarded from a stream goes
    /// to a stream: the message is settled when the other one is stored.
    fn through(&self, envelope: &Envelope) -> Through {
        let destination = envelope.destination();
        if let Some(through) = destination.native::<Through>() {
            return through.clone();
        }
        if self.is_core(envelope) { Through::Core } else { Through::Stream(Expected::default()) }
    }

    fn is_core(&self, envelope: &Envelope) -> bool {
        let destination = envelope.destination();
        if let Some(through) = destination.native::<Through>() {
            return matches!(through, Through::Core);
        }
        let is_from_stream = || envelope.origin::<NativeMessage>().and_then(NativeMessage::position).is_some();
        (!self.to_streams && !is_from_stream()) || self.is_inbox(destination)
    }

    /// Tells whether messages to a destination go to a stream, as far as the destination alone says so.
    pub(crate) fn is_of_stream(&self, destination: &Destination) -> bool {
        match destination.native::<Through>() {
            Some(through) => matches!(through, Through::Stream(_)),
            None => self.to_streams && !self.is_inbox(destination),
        }
    }

    fn is_inbox(&self, destination: &Destination) -> bool {
        semconv::inbox_template(destination.name(), &self.connection.inbox_prefix).is_some()
    }

    /// Tells whether what a subscription publishes there goes to a stream.
    pub(crate) fn goes_to_stream(&self, outbound: &Outbound<'_>) -> bool {
        let destination = outbound.destination;
        let is_forwarded =
            outbound.used_for == OutboundUse::DeadLetter && outbound.subscription.native::<Stream>().is_some();
        let is_open = destination.native::<Through>().is_none() && !self.is_inbox(destination);
        self.is_of_stream(destination) || (is_forwarded && is_open)
    }

    /// Returns the subject of a message that needs no answer, when server and protocol take it.
    fn subject_of(&self, envelope: &Envelope) -> Result<async_nats::Subject, PublishError> {
        let reply = envelope.reply_to();
        if let Some(reply) = reply {
            self.written(reply, 0)?;
        }
        self.written(envelope.destination(), reply.map_or(0, |reply| reply.name().len()))
    }

    /// Returns the subject of a message whose reply subject is that long, when the server takes both on one line.
    pub(crate) fn written(&self, destination: &Destination, reply: usize) -> Result<async_nats::Subject, PublishError> {
        let subject = destination.name();
        self.connection.line.check_publish(subject, reply)?;
        Ok(subject.into())
    }

    /// Returns the subject of a message whose answer comes to an inbox of the client.
    pub(crate) fn requested(&self, destination: &Destination) -> Result<async_nats::Subject, PublishError> {
        let subject = destination.name();
        self.connection.line.check_request(subject, self.connection.inbox_prefix.len())?;
        Ok(subject.into())
    }

    /// Sends one message: one to core NATS is done with when the client has it, one to a stream when that has answered.
    pub(crate) async fn start(&self, envelope: Envelope) -> Result<Sent, PublishError> {
        match self.through(&envelope) {
            Through::Core => {
                let subject = self.subject_of(&envelope)?;
                self.send_core(&envelope, &subject).await?;
                Ok(Sent::Taken(subject))
            }
            Through::Stream(expected) => {
                let subject = self.requested(envelope.destination())?;
                if envelope.reply_to().is_some() && self.connection.names.reply_to.is_none() {
                    return Err(no_reply_to(&subject));
                }
                let answer = Box::pin(self.send_stream(&envelope, &subject, &expected)).await?;
                Ok(Sent::Storing(Box::new(Storing { subject, answer })))
            }
        }
    }

    /// Takes the answer of a stream.
    pub(crate) async fn finish(&self, storing: Storing, answer: Answer) -> Result<Receipt, PublishError> {
        let failed = |failed| error::stream_publish(&failed, &storing.subject).with_source(failed);
        // A duplicate is stored already: an id of the application's own says that, and of a forward only the same one has its id.
        Ok(Receipt::new().with_native(answer.map_err(failed)?))
    }

    /// Hands a message to the client if that has room for it now. If not, or if anything is wrong, nothing is sent.
    pub(crate) fn is_taken_at_once(&self, envelope: &Envelope) -> bool {
        if !self.is_core(envelope) {
            return false;
        }
        let Ok(subject) = self.subject_of(envelope) else { return false };
        let Ok(message) = self.outbound(envelope, &subject) else { return false };
        let link = self.connection.link();
        matches!(link.client.publish_message(message).now_or_never(), Some(Ok(())))
    }

    pub(crate) async fn confirm(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        match self.start(envelope).await? {
            Sent::Taken(_) => Ok(Receipt::new()),
            Sent::Storing(mut storing) => {
                let answer = storing.answer.as_mut().await;
                Box::pin(self.finish(*storing, answer)).await
            }
        }
    }

    async fn send_core(&self, envelope: &Envelope, subject: &async_nats::Subject) -> Result<(), PublishError> {
        let link = self.connection.link();
        let Err(failed) = self.hand_over(&link, envelope, subject).await else { return Ok(()) };
        // What a connection task that is lost did not take, the next one can have. Boxed, as it is rare: each message
        // moves this future.
        match Box::pin(self.after(&link, &failed)).await {
            Some(next) => Box::pin(self.hand_over(&next, envelope, subject)).await,
            None => Err(failed),
        }
    }

    async fn hand_over(
        &self,
        link: &Link,
        envelope: &Envelope,
        subject: &async_nats::Subject,
    ) -> Result<(), PublishError> {
        let mut sending = pin!(link.client.publish_message(self.outbound(envelope, subject)?));
        // A timer only where there is something to wait for: the client has no room while its connection is down.
        let sent = match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                let wait = self.connection.wait(link);
                Box::pin(timeout(wait, sending)).await.map_err(|_| error::no_room(subject, wait))?
            }
        };
        sent.map_err(|failed| error::publish(&failed, subject).with_source(failed))
    }

    /// Returns the link after one that is lost, where that is why a message was not taken.
    async fn after(&self, link: &Link, failed: &PublishError) -> Option<Arc<Link>> {
        let is_lost = failed.kind() == PublishErrorKind::Disconnected && link.is_gone();
        if is_lost { self.connection.renewed(link).await } else { None }
    }

    async fn send_stream(
        &self,
        envelope: &Envelope,
        subject: &async_nats::Subject,
        expected: &Expected,
    ) -> Result<Storage, PublishError> {
        let link = self.connection.link();
        let asked = match self.ask_to_store(&link, envelope, subject, expected).await {
            Err(failed) => match Box::pin(self.after(&link, &failed)).await {
                Some(next) => Box::pin(self.ask_to_store(&next, envelope, subject, expected)).await,
                None => Err(failed),
            },
            asked => asked,
        };
        // Where the connection task is lost before the answer, nobody knows whether the message is stored.
        asked.map(PublishAckFuture::into_future)
    }

    async fn ask_to_store(
        &self,
        link: &Link,
        envelope: &Envelope,
        subject: &async_nats::Subject,
        expected: &Expected,
    ) -> Result<PublishAckFuture, PublishError> {
        let mut headers = self.headers_of(envelope)?;
        for (name, value) in expected.headers() {
            put(&mut headers, name, &value)?;
        }
        if let (Some(name), Some(reply)) = (self.connection.names.reply_to, envelope.reply_to()) {
            put(&mut headers, name, reply.name())?;
        }
        let message = PublishMessage::build().payload(envelope.payload().clone());
        let message = if headers.is_empty() { message } else { message.headers(headers) };
        let sent = link.jetstream.send_publish(subject.clone(), message).await;
        sent.map_err(|failed| error::stream_publish(&failed, subject).with_source(failed))
    }

    fn outbound(&self, envelope: &Envelope, subject: &async_nats::Subject) -> Result<OutboundMessage, PublishError> {
        let headers = self.headers_of(envelope)?;
        Ok(OutboundMessage {
            subject: subject.clone(),
            reply: envelope.reply_to().map(|reply| reply.name().into()),
            payload: envelope.payload().clone(),
            headers: (!headers.is_empty()).then_some(headers),
        })
    }

    pub(crate) fn headers_of(&self, envelope: &Envelope) -> Result<HeaderMap, PublishError> {
        headers_of(envelope, &self.connection.names, &self.connection.altered)
    }

    /// Waits until what was published to core NATS is written to the connection.
    pub(crate) async fn flush(&self, subject: &str) -> Result<(), PublishError> {
        let link = self.connection.link();
        let wait = self.connection.wait(&link);
        match timeout(wait, link.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failed)) => Err(error::disconnected(subject).with_source(failed)),
            Err(_) => Err(error::not_written(subject, wait)),
        }
    }
}

fn headers_of(envelope: &Envelope, names: &Names, altered: &Altered) -> Result<HeaderMap, PublishError> {
    let mut headers = if envelope.is_forwarded() {
        to_forwarded(envelope.headers(), envelope.destination().name(), altered)
    } else {
        to_native(envelope.headers())?
    };
    if let Some(name) = names.reply_to.filter(|_| envelope.is_forwarded()) {
        // Whoever waited for an answer has it from here.
        ClientHeaders::remove(&mut headers, name);
    }
    let forwarded = forwarded::id(envelope, || envelope.origin::<NativeMessage>().map(NativeMessage::forwarder));
    let own = [
        (MESSAGE_ID, forwarded.as_deref().or(envelope.id()).map(header_text::escape)),
        (names.correlation_id, envelope.correlation_id().map(header_text::escape)),
        (names.content_type, envelope.content_type().map(Cow::Borrowed)),
    ];
    // What a stranger sent so is passed on in no other message: it would make an error reply of it.
    let of_error =
        [ERROR_REPLY.code, ERROR_REPLY.text].map(|name| (name, envelope.headers().get(name).map(Cow::Borrowed)));
    let of_error = of_error.into_iter().filter(|_| envelope.is_error_reply());
    for (name, value) in own.into_iter().chain(of_error) {
        if let Some(value) = value {
            put(&mut headers, name, &value)?;
        }
    }
    Ok(headers)
}

pub(crate) fn no_reply_to(subject: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::Unsupported,
        error::OTHER,
        format!(
            "a stream answers a message to `{subject}` itself, there is no reply: \
             use core NATS, or name the address in a header"
        ),
    )
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::HeaderNames;

    use super::*;

    #[test]
    fn ids_that_are_not_ascii_are_escaped_and_headers_of_the_application_are_refused() {
        let envelope = || Envelope::new("orders", "x");
        let headers = headers_of(
            &envelope().with_id("m ü").with_correlation_id("corr ü 7"),
            &Names::default(),
            &Altered::default(),
        )
        .unwrap();
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "UTF-8''m%20%C3%BC", "PROP-N-10");
        assert_eq!(headers.get("correlation-id").unwrap().as_str(), "UTF-8''corr%20%C3%BC%207", "PROP-N-10");
        for refused in [envelope().with_header("X", "v ü"), envelope().with_content_type("text/ü")] {
            let error = headers_of(&refused, &Names::default(), &Altered::default()).unwrap_err();
            assert_eq!(error.kind(), PublishErrorKind::Encode, "PROP-N-08");
            assert!(error.to_string().contains("printable ASCII"), "{error}");
        }
    }

    #[test]
    fn the_headers_have_the_names_that_are_set() {
        let names = Names::set(HeaderNames::faststream());
        let envelope =
            Envelope::new("orders", "x").with_id("m1").with_correlation_id("c1").with_content_type("text/plain");
        let headers = headers_of(&envelope, &names, &Altered::default()).unwrap();
        let mut all: Vec<(&str, &str)> =
            headers.iter().map(|(name, values)| (name.as_ref(), values[0].as_str())).collect();
        all.sort_unstable();
        assert_eq!(all, [("Nats-Msg-Id", "m1"), ("content-type", "text/plain"), ("correlation_id", "c1")]);

        let delivery = throughline_core::Delivery::new("orders", "x")
            .with_headers([("reply_to", "answers")].into_iter().collect());
        let forward = headers_of(&Envelope::forward(&delivery, "dead"), &names, &Altered::default()).unwrap();
        assert!(forward.is_empty(), "nobody waits for the answer of a dead letter");
    }

    #[test]
    fn the_ids_travel_as_headers_and_copied_server_headers_do_not() {
        let envelope = Envelope::new("orders", "x")
            .with_header("Nats-Expected-Stream", "OTHER")
            .with_header("nats-msg-id", "copied")
            .with_header("Nats-Service-Error", "copied")
            .with_id("m1")
            .with_correlation_id("c1")
            .with_content_type("application/json");
        let headers = headers_of(&envelope, &Names::default(), &Altered::default()).unwrap();
        assert_eq!(headers.len(), 3, "PROP-N-04");
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "m1", "ATTR-N-06");
        assert_eq!(headers.get("correlation-id").unwrap().as_str(), "c1", "ATTR-N-08");
        assert_eq!(headers.get("content-type").unwrap().as_str(), "application/json");
    }
}

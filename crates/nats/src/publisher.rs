use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::client::traits::Publisher as _;
use async_nats::jetstream::publish::PublishAck;
use async_nats::message::OutboundMessage;
use async_trait::async_trait;
use futures_util::StreamExt;
use throughline_core::broker::{Publish, PublishError, PublishErrorKind};
use throughline_core::message::{Delivery, Destination, Envelope, Receipt, System, Target};
use tokio::time::timeout;

use crate::broker::Connection;
use crate::carrier::{put, to_native};
use crate::delivery::{CONTENT_TYPE, CORRELATION_ID, MESSAGE_ID, from_core};
use crate::destination::{Expected, Route};
use crate::{error, semconv};

/// How many messages of one batch wait for the confirmation of their stream at a time.
const IN_FLIGHT: usize = 256;

/// How long a publish waits for the connection when the client has no request timeout.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Publishes on one connection: to core NATS, or to streams.
#[derive(Debug)]
pub(crate) struct NatsPublisher {
    pub(crate) connection: Arc<Connection>,
    /// Whether a plain destination is a stream's subject.
    pub(crate) to_streams: bool,
}

impl NatsPublisher {
    /// Says which way a message goes. A request's reply goes to an inbox, which no stream has.
    fn route(&self, destination: &Destination) -> Route {
        if let Some(route) = destination.native::<Route>() {
            return route.clone();
        }
        let is_inbox = semconv::inbox_template(destination.name(), &self.connection.inbox_prefix).is_some();
        if self.to_streams && !is_inbox { Route::Stream(Expected::default()) } else { Route::Core }
    }

    /// Sends one message; to core NATS without a flush.
    async fn send(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let subject = subject_of(envelope.destination())?;
        match self.route(envelope.destination()) {
            Route::Core => self.send_core(&envelope, subject).await,
            Route::Stream(expected) => self.send_stream(&envelope, subject, &expected).await,
        }
    }

    async fn send_core(&self, envelope: &Envelope, subject: async_nats::Subject) -> Result<Receipt, PublishError> {
        let headers = headers_of(envelope)?;
        let reply = envelope.reply_to().map(subject_of).transpose()?;
        let payload = envelope.payload().clone();
        let message = OutboundMessage {
            subject: subject.clone(),
            reply,
            payload,
            headers: (!headers.is_empty()).then_some(headers),
        };
        let published = self.connection.client.publish_message(message).await;
        published.map_err(|failed| error::publish(&failed, &subject).with_source(failed))?;
        Ok(Receipt::new())
    }

    async fn send_stream(
        &self,
        envelope: &Envelope,
        subject: async_nats::Subject,
        expected: &Expected,
    ) -> Result<Receipt, PublishError> {
        if envelope.reply_to().is_some() {
            return Err(no_reply_to(&subject));
        }
        let mut headers = headers_of(envelope)?;
        for (name, value) in expected.headers() {
            put(&mut headers, name, &value)?;
        }
        let mut ack = self.store(envelope, &subject, headers.clone()).await?;
        if let Some(id) = envelope.id().filter(|_| ack.duplicate && envelope.is_forwarded()) {
            // The stream has the id from the message this one was made of, and drops it: a dead letter in the same
            // stream.
            put(&mut headers, MESSAGE_ID, &format!("{id}@{subject}"))?;
            ack = self.store(envelope, &subject, headers).await?;
        }
        Ok(Receipt::new().with_native(ack))
    }

    async fn store(
        &self,
        envelope: &Envelope,
        subject: &async_nats::Subject,
        headers: HeaderMap,
    ) -> Result<PublishAck, PublishError> {
        let failed = |failed| error::stream_publish(&failed, subject).with_source(failed);
        let sent =
            self.connection.jetstream.publish_with_headers(subject.clone(), headers, envelope.payload().clone()).await;
        sent.map_err(failed)?.await.map_err(failed)
    }

    /// Waits until what was published to core NATS is written to the connection.
    async fn flush(&self, subject: &str) -> Result<(), PublishError> {
        let client = &self.connection.client;
        let wait = client.timeout().unwrap_or(DEFAULT_WAIT);
        match timeout(wait, client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failed)) => Err(error::disconnected(subject).with_source(failed)),
            Err(_) => Err(error::not_written(subject, wait)),
        }
    }
}

#[async_trait]
impl Publish for NatsPublisher {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.connection.systems.core)
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        semconv::target(destination, &self.connection.inbox_prefix)
    }

    async fn publish(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let subject = subject_of(envelope.destination())?;
        match self.route(envelope.destination()) {
            Route::Core => {
                let receipt = self.send_core(&envelope, subject.clone()).await?;
                self.flush(&subject).await?;
                Ok(receipt)
            }
            Route::Stream(expected) => self.send_stream(&envelope, subject, &expected).await,
        }
    }

    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        let core: Vec<Option<Destination>> = messages
            .iter()
            .map(Envelope::destination)
            .map(|destination| matches!(self.route(destination), Route::Core).then(|| destination.clone()))
            .collect();
        let sending = futures_util::stream::iter(messages).map(|message| self.send(message));
        let mut results: Vec<_> = sending.buffered(IN_FLIGHT).collect().await;
        let Some(any) = core.iter().flatten().next() else { return results };
        if self.flush(any.name()).await.is_err() {
            for (result, destination) in results.iter_mut().zip(&core) {
                if let Some(destination) = destination.as_ref().filter(|_| result.is_ok()) {
                    *result = Err(error::disconnected(destination.name()));
                }
            }
        }
        results
    }

    async fn request(&self, envelope: Envelope, wait: Duration) -> Result<Delivery, PublishError> {
        let subject = subject_of(envelope.destination())?;
        if let Some(Route::Stream(_)) = envelope.destination().native::<Route>() {
            return Err(no_reply_to(&subject));
        }
        let headers = headers_of(&envelope)?;
        let mut request = async_nats::Request::new().payload(envelope.payload().clone()).timeout(Some(wait));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let reply = self.connection.client.send_request(subject.clone(), request).await;
        reply.map(from_core).map_err(|failed| error::request(&failed, &subject, Some(wait)).with_source(failed))
    }
}

/// Checks a subject as strictly as the server reads it; the client looks for white space only.
fn subject_of(destination: &Destination) -> Result<async_nats::Subject, PublishError> {
    let name = destination.name();
    let why = if name.is_empty() {
        "it is empty"
    } else if name.contains(|sign: char| sign.is_whitespace() || sign.is_control()) {
        "it has white space"
    } else if name.split('.').any(str::is_empty) {
        "it has an empty token"
    } else if name.split('.').any(|token| token == "*" || token == ">") {
        "it has a wildcard"
    } else {
        return Ok(name.into());
    };
    Err(error::invalid_subject(&name.escape_debug().to_string(), why))
}

fn headers_of(envelope: &Envelope) -> Result<HeaderMap, PublishError> {
    let mut headers = to_native(envelope.headers())?;
    let own = [
        (MESSAGE_ID, envelope.id()),
        (CORRELATION_ID, envelope.correlation_id()),
        (CONTENT_TYPE, envelope.content_type()),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            put(&mut headers, name, value)?;
        }
    }
    Ok(headers)
}

fn no_reply_to(subject: &str) -> PublishError {
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subject_to_publish_to_has_no_wildcard_and_no_empty_token() {
        for name in ["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "a\r\nPUB b", "a\u{0}b"] {
            let error = subject_of(&Destination::new(name)).unwrap_err();
            assert_eq!(
                (error.kind(), error.error_type()),
                (PublishErrorKind::InvalidDestination, "invalid_subject"),
                "{name:?}"
            );
        }
        for name in ["a", "a.b", "$SYS.x", "a*b", "größe"] {
            assert!(subject_of(&Destination::new(name)).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn the_ids_travel_as_headers_and_copied_server_headers_do_not() {
        let envelope = Envelope::new("orders", "x")
            .with_header("Nats-Expected-Stream", "OTHER")
            .with_header("nats-msg-id", "copied")
            .with_id("m1")
            .with_correlation_id("c1")
            .with_content_type("application/json");
        let headers = headers_of(&envelope).unwrap();
        assert_eq!(headers.len(), 3, "PROP-N-04");
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "m1", "ATTR-N-06");
        assert_eq!(headers.get("correlation-id").unwrap().as_str(), "c1", "ATTR-N-08");
        assert_eq!(headers.get("content-type").unwrap().as_str(), "application/json");
    }

    proptest! {
        #[test]
        fn no_subject_makes_the_check_panic(name in ".*") {
            let _ = subject_of(&Destination::new(name.as_str()));
        }
    }
}

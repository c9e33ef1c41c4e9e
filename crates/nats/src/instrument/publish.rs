use std::borrow::{Borrow, Cow};

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError as StreamPublishError, PublishErrorKind as StreamPublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{
    Client, HeaderMap, HeaderName, HeaderValue, Message, PublishError, PublishErrorKind, Request, RequestError,
    RequestErrorKind, Subject, ToSubject,
};
use bytes::Bytes;
use throughline_core::broker::PublishErrorKind as Refusal;
use throughline_core::message::{CreationContext, header_text};
use throughline_core::telemetry::Sending;

use super::outlet::Verb;
use super::{Instrumentation, PublishAckFuture};
use crate::carrier::{check, escape_all, first, remove_server_headers};
use crate::delivery::MESSAGE_ID;
use crate::protocol::Line;
use crate::{error, forwarded};

/// What the client publishes with: `async_nats::Client` to core NATS, `async_nats::jetstream::Context` to a stream.
pub trait ClientPublisher: sealed::Sealed + Sync {
    /// What the client returns when it has taken the message: nothing, or the stream's answer to come.
    type Published: Send;

    /// The client's own error.
    type Error: Send;

    #[doc(hidden)]
    fn to_client(&self) -> Cow<'_, Client>;

    #[doc(hidden)]
    fn send(
        &self,
        sending: Sending,
        line: Line,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> impl Future<Output = Result<Self::Published, Self::Error>> + Send;
}

impl ClientPublisher for Client {
    type Published = ();
    type Error = PublishError;

    fn to_client(&self) -> Cow<'_, Client> {
        Cow::Borrowed(self)
    }

    async fn send(
        &self,
        sending: Sending,
        line: Line,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let result = match line.check_publish(&subject, 0).and_then(|()| check(&headers)) {
            Err(why) => Err(refused(why)),
            Ok(()) if headers.is_empty() => self.publish(subject.clone(), payload).await,
            Ok(()) => self.publish_with_headers(subject.clone(), headers, payload).await,
        };
        finish_core(sending, result, &subject)
    }
}

impl ClientPublisher for Context {
    type Published = PublishAckFuture;
    type Error = StreamPublishError;

    fn to_client(&self) -> Cow<'_, Client> {
        Cow::Owned(self.client())
    }

    async fn send(
        &self,
        sending: Sending,
        line: Line,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PublishAckFuture, StreamPublishError> {
        let checked = line.check_request(&subject, line.inbox(&subject, || self.client()));
        let sent = match checked.and_then(|()| check(&headers)) {
            Err(why) => Err(StreamPublishError::with_source(StreamPublishErrorKind::Other, why)),
            Ok(()) => {
                let message = PublishMessage::build().payload(payload);
                let message = if headers.is_empty() { message } else { message.headers(headers) };
                self.send_publish(subject.clone(), message).await
            }
        };
        match sent {
            Ok(ack) => Ok(PublishAckFuture::new(ack, sending, subject)),
            Err(failed) => {
                sending.finish(Vec::new(), Some(&error::stream_publish(&failed, &subject)));
                Err(failed)
            }
        }
    }
}

/// Publishing.
impl Instrumentation {
    /// Publishes a message, with a client to core NATS or with a JetStream context to a stream.
    ///
    /// To core NATS the span ends when the client has taken the message. To a stream it ends when the server has stored
    /// it, which is when the [`PublishAckFuture`] is done.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client,
    /// #     jetstream: async_nats::jetstream::Context,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// otel.publish(&client, "prices", "{}".into()).await?;
    /// let ack = otel.publish(&jetstream, "orders", "{}".into()).await?.await?;
    /// println!("message {} of stream {}", ack.sequence, ack.stream);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish<C: ClientPublisher, S: ToSubject>(
        &self,
        client: &C,
        subject: S,
        payload: Bytes,
    ) -> Result<C::Published, C::Error> {
        self.publish_with_headers(client, subject, HeaderMap::new(), payload).await
    }

    /// Publishes a message with headers, as [`publish`](Self::publish). Propagation headers among them are replaced.
    ///
    /// # Errors
    ///
    /// Fails as the client does, and where the value of a header is not printable ASCII: other clients cannot read it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut headers = async_nats::HeaderMap::new();
    /// headers.insert("tenant", "acme");
    /// otel.publish_with_headers(&client, "orders", headers, "{}".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_with_headers<C: ClientPublisher, S: ToSubject>(
        &self,
        client: &C,
        subject: S,
        mut headers: HeaderMap,
        payload: Bytes,
    ) -> Result<C::Published, C::Error> {
        let subject = subject.to_subject();
        let find = || Found(client.to_client());
        let sending = self.start_send(find, Verb::Publish, &subject, &mut headers, payload.len());
        self.forward(&subject, &mut headers, &payload);
        client.send(sending, self.reader().line(), subject, headers, payload).await
    }

    /// Publishes a message that names where an answer is to go, without waiting for one.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// otel.publish_with_reply(&client, "prices.get", "prices.answers", "{}".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_with_reply<S: ToSubject, R: ToSubject>(
        &self,
        client: &Client,
        subject: S,
        reply: R,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        self.publish_with_reply_and_headers(client, subject, reply, HeaderMap::new(), payload).await
    }

    /// Publishes a message with headers that names where an answer is to go, without waiting for one.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client, headers: async_nats::HeaderMap,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// otel.publish_with_reply_and_headers(&client, "prices.get", "prices.answers", headers, "{}".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_with_reply_and_headers<S: ToSubject, R: ToSubject>(
        &self,
        client: &Client,
        subject: S,
        reply: R,
        mut headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let subject = subject.to_subject();
        let sending =
            self.start_send(|| Found(Cow::Borrowed(client)), Verb::Publish, &subject, &mut headers, payload.len());
        self.forward(&subject, &mut headers, &payload);
        let reply = reply.to_subject();
        let line = self.reader().line();
        let checked = line.check_publish(&reply, 0).and_then(|()| line.check_publish(&subject, reply.len()));
        let result = match checked.and_then(|()| check(&headers)) {
            Err(why) => Err(refused(why)),
            Ok(()) if headers.is_empty() => client.publish_with_reply(subject.clone(), reply, payload).await,
            Ok(()) => client.publish_with_reply_and_headers(subject.clone(), reply, headers, payload).await,
        };
        finish_core(sending, result, &subject)
    }

    /// Sends a request and waits for the reply. The span lasts until it is there.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let price = otel.request(&client, "prices.get", "apple".into()).await?;
    /// println!("{} bytes", price.length);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request<S: ToSubject>(
        &self,
        client: &Client,
        subject: S,
        payload: Bytes,
    ) -> Result<Message, RequestError> {
        self.send_request(client, subject, Request::new().payload(payload)).await
    }

    /// Sends a request with headers and waits for the reply.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client, headers: async_nats::HeaderMap,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let price = otel.request_with_headers(&client, "prices.get", headers, "apple".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request_with_headers<S: ToSubject>(
        &self,
        client: &Client,
        subject: S,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, RequestError> {
        self.send_request(client, subject, Request::new().headers(headers).payload(payload)).await
    }

    /// Sends a request built by the client's `Request` and waits for the reply.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use async_nats::Request;
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let request = Request::new().payload("apple".into()).timeout(Some(Duration::from_secs(1)));
    /// let price = otel.send_request(&client, "prices.get", request).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_request<S: ToSubject>(
        &self,
        client: &Client,
        subject: S,
        mut request: Request,
    ) -> Result<Message, RequestError> {
        let subject = subject.to_subject();
        let mut headers = request.headers.take().unwrap_or_default();
        let size = request.payload.as_ref().map_or(0, Bytes::len);
        let wait = request.timeout.unwrap_or_else(|| client.timeout());
        let sending = self.start_send(|| Found(Cow::Borrowed(client)), Verb::Request, &subject, &mut headers, size);
        let checked = check(&headers);
        request.headers = (!headers.is_empty()).then_some(headers);
        let line = self.reader().line();
        let inbox = match &request.inbox {
            Some(inbox) => inbox.len(),
            None => line.inbox(&subject, || client.clone()),
        };
        let reply = match line.check_request(&subject, inbox).and(checked) {
            Err(why) if why.kind() == Refusal::Encode => Err(RequestError::with_source(RequestErrorKind::Other, why)),
            Err(why) => Err(RequestError::with_source(RequestErrorKind::InvalidSubject, why)),
            Ok(()) => client.send_request(subject.clone(), request).await,
        };
        let failed = reply.as_ref().err().map(|failed| error::request(failed, &subject, wait));
        sending.finish(Vec::new(), failed.as_ref());
        reply
    }

    /// Publishes a message built by the client's `PublishMessage` to a stream, as [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use async_nats::jetstream::message::PublishMessage;
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, jetstream: async_nats::jetstream::Context,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let message = PublishMessage::build().payload("{}".into()).message_id("order-42");
    /// otel.send_publish(&jetstream, "orders", message).await?.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_publish<S: ToSubject>(
        &self,
        context: &Context,
        subject: S,
        publish: PublishMessage,
    ) -> Result<PublishAckFuture, StreamPublishError> {
        let message = publish.outbound_message(subject);
        let headers = message.headers.unwrap_or_default();
        self.publish_with_headers(context, message.subject, headers, message.payload).await
    }

    /// Makes the headers of a message that keeps its creation context those of a forward: they were somebody else's, and what they
    /// ask the server for is not for this publish. The id is one of its own, or a stream that has the message drops it.
    fn forward(&self, subject: &str, headers: &mut HeaderMap, payload: &[u8]) {
        if !matches!(self.handle.creation(), CreationContext::Kept) {
            return;
        }
        let id = first(headers, MESSAGE_ID).map(|id| {
            let id = header_text::unescape(id);
            forwarded::raw_id(&id, self.reader().number, subject, headers, payload)
        });
        remove_server_headers(headers);
        escape_all(headers, subject, &self.reader().altered);
        if let Some(id) = id.and_then(|id| header_text::escape(&id).parse::<HeaderValue>().ok()) {
            headers.insert(HeaderName::from_static(MESSAGE_ID), id);
        }
    }
}

/// Returns the client's error for what was not given to it.
fn refused(why: throughline_core::PublishError) -> PublishError {
    let kind = match why.kind() {
        Refusal::Encode => PublishErrorKind::Send,
        _ => PublishErrorKind::InvalidSubject,
    };
    PublishError::with_source(kind, why)
}

fn finish_core(sending: Sending, result: Result<(), PublishError>, subject: &str) -> Result<(), PublishError> {
    let failed = result.as_ref().err().map(|failed| error::publish(failed, subject));
    sending.finish(Vec::new(), failed.as_ref());
    result
}

/// A client, at hand or taken out of a context.
struct Found<'a>(Cow<'a, Client>);

impl AsRef<Client> for Found<'_> {
    fn as_ref(&self) -> &Client {
        self.0.borrow()
    }
}

mod sealed {
    /// What keeps the trait to the client's own types.
    pub trait Sealed {}

    impl Sealed for async_nats::Client {}
    impl Sealed for async_nats::jetstream::Context {}
}

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{BoxFuture, Publish, PublishErrorKind, done};
use throughline_core::message::{System, Target};
use throughline_core::{Delivery, Destination, Envelope, PublishError, Receipt};
use tokio::time::timeout;

use crate::semconv::INBOX;
use crate::server::{Connection, Message, PublishFault, Server, is_inbox};

/// Publishes on one broker.
pub(crate) struct Transport {
    server: Arc<Server>,
    connection: Arc<Connection>,
    system: Arc<System>,
}

impl Transport {
    pub(crate) const fn new(server: Arc<Server>, connection: Arc<Connection>, system: Arc<System>) -> Self {
        Self { server, connection, system }
    }

    /// Publishes a message, or each of a batch, and returns how many subscriptions, groups or requests it reached.
    fn send(&self, envelope: Envelope) -> Result<usize, PublishError> {
        if envelope.is_batch() {
            return envelope.messages().iter().map(|message| self.send(message.clone())).sum();
        }
        let name = envelope.destination().name();
        if name.is_empty() {
            return Err(no_destination());
        }
        let Some(fault) = self.connection.publish_fault(name) else {
            return Ok(self.server.deliver(Message::published(envelope)));
        };
        let error = failed(fault, name);
        if let PublishFault::Unconfirmed = fault {
            self.server.deliver(Message::published(envelope));
        }
        Err(error)
    }
}

#[async_trait]
impl Publish for Transport {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.system)
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        let name = destination.name();
        if is_inbox(name) {
            return Target::new(name).with_template(INBOX).temporary();
        }
        Target::of(destination)
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        match self.send(envelope) {
            Ok(_) => done(),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    async fn request(&self, envelope: Envelope, limit: Duration) -> Result<Delivery, PublishError> {
        let mut inbox = self.server.open_inbox();
        let destination = envelope.destination().clone();
        let reply_to = Destination::new(inbox.name()).with_template(INBOX);
        if self.send(envelope.with_reply_to(reply_to))? == 0 {
            return Err(no_responders(destination.name()));
        }
        match timeout(limit, inbox.reply()).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) | Err(_) => Err(no_reply(destination.name(), limit)),
        }
    }
}

fn no_destination() -> PublishError {
    let message = "the message has no destination: give it one with `with_destination`";
    PublishError::new(PublishErrorKind::InvalidDestination, "invalid_destination", message)
}

/// Says what a real broker says, and that a test wanted it.
fn failed(fault: PublishFault, name: &str) -> PublishError {
    let (kind, message) = match fault {
        PublishFault::Fails(kind) => (kind, format!("the test made this publish to `{name}` fail")),
        PublishFault::Lost => {
            (PublishErrorKind::Disconnected, "the connection to the in-memory broker is lost".to_owned())
        }
        PublishFault::Unconfirmed => {
            (PublishErrorKind::Timeout, format!("the test lost the confirmation of this publish to `{name}`"))
        }
    };
    PublishError::new(kind, error_type(kind), message)
}

const fn error_type(kind: PublishErrorKind) -> &'static str {
    match kind {
        PublishErrorKind::Decode => "decode_error",
        PublishErrorKind::Disconnected => "disconnected",
        PublishErrorKind::Encode => "encode_error",
        PublishErrorKind::InvalidDestination => "invalid_destination",
        PublishErrorKind::NotFound => "not_found",
        PublishErrorKind::Refused => "refused",
        PublishErrorKind::Timeout => "timeout",
        PublishErrorKind::TooLarge => "too_large",
        PublishErrorKind::Unauthorized => "unauthorized",
        PublishErrorKind::Unavailable => "unavailable",
        PublishErrorKind::Unsupported => "unsupported",
        _ => "_OTHER",
    }
}

fn no_responders(name: &str) -> PublishError {
    PublishError::new(PublishErrorKind::NotFound, "no_responders", format!("nobody listens on `{name}`"))
}

fn no_reply(name: &str, limit: Duration) -> PublishError {
    PublishError::new(PublishErrorKind::Timeout, "timeout", format!("no reply from `{name}` within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::{Broker, Subscriber};

    use super::*;
    use crate::testing::{next, next_body, nothing_waits, publish, subscribe};
    use crate::{Channel, Memory};

    const LONG: Duration = Duration::from_secs(5);

    /// Answers one request with its body behind `re: `, twice.
    async fn answer(memory: Memory, mut requests: Box<dyn Subscriber>) -> Destination {
        let request = next(&mut requests).await.delivery.clone();
        let inbox = request.reply_to().unwrap().clone();
        let body = [b"re: ", request.payload().as_ref()].concat();
        for _ in 0..2 {
            memory.transport().publish(Envelope::new(inbox.clone(), body.clone())).await.unwrap();
        }
        inbox
    }

    #[tokio::test]
    async fn a_request_gets_the_first_reply() {
        let memory = Memory::new();
        let requests = subscribe(&memory, Channel::new("prices.get")).await;
        let answering = tokio::spawn(answer(memory.clone(), requests));
        let transport = memory.transport();

        let reply = transport.request(Envelope::new("prices.get", "bread"), LONG).await.unwrap();

        assert_eq!(reply.payload().as_ref(), b"re: bread");
        let inbox = answering.await.unwrap();
        let target = transport.target(&inbox);
        assert_eq!((target.template.as_deref(), target.temporary, target.anonymous), (Some("_INBOX"), true, true));
        assert_eq!((target.name.as_ref(), reply.destination()), (inbox.name(), inbox.name()));
    }

    #[tokio::test]
    async fn requests_at_the_same_time_get_their_own_replies() {
        let memory = Memory::new();
        let mut requests = subscribe(&memory, Channel::new("echo")).await;
        let transport = memory.transport();
        let answering = async {
            let (one, two) = (next(&mut requests).await, next(&mut requests).await);
            for request in [two, one] {
                let request = &request.delivery;
                let reply = Envelope::new(request.reply_to().unwrap().clone(), request.payload().clone());
                transport.publish(reply).await.unwrap();
            }
        };
        let (one, two, ()) = tokio::join!(
            transport.request(Envelope::new("echo", "1"), LONG),
            transport.request(Envelope::new("echo", "2"), LONG),
            answering,
        );
        assert_eq!((one.unwrap().payload().as_ref(), two.unwrap().payload().as_ref()), (&b"1"[..], &b"2"[..]));
    }

    #[tokio::test]
    async fn a_request_that_nobody_listens_to_fails_at_once() {
        let error = Memory::new().transport().request(Envelope::new("svc", "x"), LONG).await.unwrap_err();
        assert_eq!((error.kind(), error.error_type()), (PublishErrorKind::NotFound, "no_responders"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_reply_times_out_and_a_late_reply_is_dropped() {
        let memory = Memory::new();
        let mut requests = subscribe(&memory, Channel::new("svc")).await;
        let error = memory.transport().request(Envelope::new("svc", "x"), LONG).await.unwrap_err();
        assert!(error.is_timeout());

        let inbox = next(&mut requests).await.delivery.reply_to().unwrap().clone();
        let mut all = subscribe(&memory, Channel::new("other")).await;
        memory.transport().publish(Envelope::new(inbox, "late")).await.unwrap();
        nothing_waits(&mut all).await;
    }

    #[tokio::test]
    async fn a_message_without_a_destination_is_refused() {
        let error = Memory::new().transport().publish(Envelope::unaddressed("x")).await.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::InvalidDestination);
    }

    #[tokio::test]
    async fn a_batch_in_one_envelope_arrives_message_by_message() {
        let memory = Memory::new();
        let mut orders = subscribe(&memory, Channel::new("orders")).await;
        let batch = Envelope::batch("orders", [Envelope::unaddressed("1"), Envelope::unaddressed("2")]);
        memory.transport().publish(batch).await.unwrap();
        assert_eq!([next_body(&mut orders).await, next_body(&mut orders).await], ["1", "2"]);
    }

    #[tokio::test]
    async fn a_batch_is_published_in_order() {
        let memory = Memory::new();
        let mut orders = subscribe(&memory, Channel::new("orders")).await;
        let messages = vec![Envelope::new("orders", "1"), Envelope::unaddressed("x"), Envelope::new("orders", "2")];
        let results = memory.transport().publish_batch(messages).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!([next_body(&mut orders).await, next_body(&mut orders).await], ["1", "2"]);
    }

    #[tokio::test]
    async fn many_computed_names_are_delivered() {
        let memory = Memory::new();
        let mut orders = subscribe(&memory, Channel::new("orders.*")).await;
        for number in 0..3000 {
            publish(&memory, format!("orders.{number}"), "x").await;
            assert_eq!(next(&mut orders).await.delivery.destination(), format!("orders.{number}"));
            let _ = next_body(&mut orders).await;
        }
    }

    #[test]
    fn the_template_of_a_computed_name_is_in_its_target() {
        let destination = Destination::new("orders.42").with_template("orders.{id}");
        let transport = Memory::new().transport();
        let target = transport.target(&destination);
        assert_eq!((target.name.as_ref(), target.template.as_deref()), ("orders.42", Some("orders.{id}")));
        assert!(!target.temporary && !target.anonymous);
    }
}

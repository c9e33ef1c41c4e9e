use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use throughline_core::broker::{BrokerError, Pattern, Received, Subscriber, Subscription};
use throughline_core::message::Source;
use tokio::time::timeout;

use crate::broker::Connection;
use crate::delivery::from_core;
use crate::{error, semconv};

/// How long a closing subscription waits for the client when nothing more comes.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Receives from core NATS. The client subscribes again after a reconnect by itself.
#[derive(Debug)]
pub(crate) struct CoreSubscriber {
    connection: Arc<Connection>,
    subscriber: async_nats::Subscriber,
    source: Arc<Source>,
    subject: Arc<str>,
}

impl CoreSubscriber {
    /// Subscribes, and waits until the server knows: what is published from now on arrives.
    pub(crate) async fn open(connection: &Arc<Connection>, subscription: &Subscription) -> Result<Self, BrokerError> {
        let [pattern] = subscription.patterns() else {
            return Err(BrokerError::configuration(format!(
                "`{}` and other subjects in one subscription: subscribe to each of them",
                subscription.destination(),
            )));
        };
        let subject = wire_subject(pattern)?;
        let refused = |failed| error::subscribe(failed, &subject);
        let client = &connection.client;
        connection.denied.forget(&subject);
        let subscriber = match subscription.group() {
            Some(group) => client.queue_subscribe(subject.clone(), group.to_owned()).await.map_err(refused)?,
            None => client.subscribe(subject.clone()).await.map_err(refused)?,
        };
        connection.round_trip().await?;
        connection.denied.check(&subject)?;
        let source = Arc::new(semconv::core_source(&connection.systems.core, subscription, &connection.inbox_prefix));
        Ok(Self { connection: Arc::clone(connection), subscriber, source, subject: subject.into() })
    }
}

#[async_trait]
impl Subscriber for CoreSubscriber {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        tokio::select! {
            biased;
            arrived = self.subscriber.next() => match arrived {
                Some(message) => Ok(Received::new(from_core(message))),
                None => Err(error::connection_ended(&self.subject)),
            },
            denied = self.connection.denied.wait(&self.subject) => Err(denied),
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        let arrived = self.subscriber.next().now_or_never()?;
        Some(match arrived {
            Some(message) => Ok(Received::new(from_core(message))),
            None => Err(error::connection_ended(&self.subject)),
        })
    }

    async fn close(&mut self) {
        // The server forgets what it has delivered, so all that it sent is to arrive before the client forgets the
        // subscription.
        if self.connection.is_connected() {
            let _ = self.connection.round_trip().await;
        }
        // Fails only when the connection is gone, and the subscription with it.
        let _ = self.subscriber.drain().await;
    }

    async fn drain(&mut self) -> Option<Received> {
        let next = timeout(DRAIN_WAIT, self.subscriber.next()).await.ok()?;
        next.map(|message| Received::new(from_core(message)))
    }
}

/// Returns the subject that goes to the server, checked as strictly as the server reads it.
pub(crate) fn wire_subject(pattern: &Pattern) -> Result<String, BrokerError> {
    let subject = pattern.to_wire();
    let mut tokens = subject.split('.').rev();
    let last_is_empty = tokens.next().is_none_or(str::is_empty);
    let why = if last_is_empty || tokens.clone().any(str::is_empty) {
        "it has an empty token"
    } else if tokens.any(|token| token == ">") {
        "`>` stands before its end"
    } else if subject.contains(|sign: char| sign.is_whitespace() || sign.is_control()) {
        "it has white space"
    } else {
        return Ok(subject);
    };
    Err(error::invalid_subscription(&subject.escape_debug().to_string(), why))
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::BrokerErrorKind;

    use super::*;
    use crate::semconv::WILDCARDS;

    #[test]
    fn a_subject_to_subscribe_to_is_checked_before_it_is_sent() {
        for text in ["", ".", "a..b", "a.", ".a", "a.>.b", "a b", "a\r\nb"] {
            let error = wire_subject(&Pattern::new(text, WILDCARDS)).unwrap_err();
            assert_eq!(
                (error.kind(), error.error_type()),
                (BrokerErrorKind::Configuration, "invalid_subject"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn placeholders_are_stars_on_the_wire() {
        for (text, wire) in [("orders.{id}", "orders.*"), ("a.*.>", "a.*.>"), (">", ">"), ("a", "a")] {
            assert_eq!(wire_subject(&Pattern::new(text, WILDCARDS)).unwrap(), wire);
        }
    }
}

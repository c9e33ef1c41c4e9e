use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use throughline_core::broker::{BrokerError, Pattern, Received, Subscriber, Subscription};
use throughline_core::message::Source;
use tokio::time::{Instant, timeout};

use crate::broker::Connection;
use crate::delivery::{LastSubject, from_core};
use crate::link::Link;
use crate::protocol::{has_space, shown};
use crate::{error, semconv};

/// How long a closing subscription waits for the client when nothing more comes.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Receives from core NATS. The client subscribes again after a reconnect by itself; after its connection task was lost
/// this does.
pub(crate) struct CoreSubscriber {
    connection: Arc<Connection>,
    link: Arc<Link>,
    subscriber: async_nats::Subscriber,
    source: Arc<Source>,
    last: LastSubject,
    subject: Arc<str>,
    group: Option<String>,
    /// Kept over calls: to begin to wait takes locks, once per message.
    refused: BoxFuture<'static, BrokerError>,
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
        let (link, group) = (connection.link(), subscription.group().map(str::to_owned));
        connection.line.check_subscription(&subject, group.as_deref())?;
        connection.denied.forget(&subject);
        let subscriber = subscribe(&link, &subject, group.clone()).await?;
        link.round_trip().await?;
        connection.denied.check(&subject)?;
        let source = Arc::new(semconv::core_source(&connection.systems.core, subscription, &connection.inbox_prefix));
        let subject = Arc::from(subject);
        Ok(Self {
            refused: refused(connection, &subject),
            connection: Arc::clone(connection),
            link,
            subscriber,
            source,
            last: LastSubject::new(),
            subject,
            group,
        })
    }

    /// Subscribes on the link that comes after a lost one. Cancel safe.
    async fn subscribe_again(&mut self) -> Result<(), BrokerError> {
        let next = self.connection.links.after(&self.link).await;
        let link = next.ok_or_else(|| error::connection_ended(&self.subject))?;
        self.connection.denied.forget(&self.subject);
        match subscribe(&link, &self.subject, self.group.clone()).await {
            Ok(subscriber) => (self.link, self.subscriber) = (link, subscriber),
            // Lost again; the next call sees it.
            Err(_) if link.is_gone() => self.link = link,
            Err(failed) => return Err(failed),
        }
        Ok(())
    }
}

/// Waits until the server says that a subscription is not allowed.
fn refused(connection: &Connection, subject: &Arc<str>) -> BoxFuture<'static, BrokerError> {
    let (denied, subject) = (Arc::clone(&connection.denied), Arc::clone(subject));
    Box::pin(async move { denied.wait(&subject).await })
}

async fn subscribe(link: &Link, subject: &str, group: Option<String>) -> Result<async_nats::Subscriber, BrokerError> {
    let subscribed = match group {
        Some(group) => link.client.queue_subscribe(subject.to_owned(), group).await,
        None => link.client.subscribe(subject.to_owned()).await,
    };
    subscribed.map_err(|failed| error::subscribe(failed, subject))
}

#[async_trait]
impl Subscriber for CoreSubscriber {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        loop {
            tokio::select! {
                biased;
                arrived = self.subscriber.next() => if let Some(message) = arrived {
                    return Ok(Received::new(from_core(message, &mut self.last)));
                },
                denied = self.refused.as_mut() => {
                    self.refused = refused(&self.connection, &self.subject);
                    return Err(denied);
                }
            }
            self.subscribe_again().await?;
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        // The end of the client's subscription is `receive`'s to heal.
        let message = self.subscriber.next().now_or_never()??;
        Some(Ok(Received::new(from_core(message, &mut self.last))))
    }

    async fn close(&mut self, _deadline: Instant) {
        // The server forgets what it has delivered, so all that it sent is to arrive before the client forgets the
        // subscription.
        if self.link.is_connected() {
            let _ = self.link.round_trip().await;
        }
        // Fails only when the connection is gone, and the subscription with it.
        let _ = self.subscriber.drain().await;
    }

    async fn drain(&mut self) -> Option<Received> {
        let next = timeout(DRAIN_WAIT, self.subscriber.next()).await.ok()?;
        next.map(|message| Received::new(from_core(message, &mut self.last)))
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
    } else if has_space(&subject) {
        "it has white space"
    } else {
        return Ok(subject);
    };
    Err(error::invalid_subscription(&shown(&subject), why))
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

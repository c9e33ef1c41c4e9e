use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_trait::async_trait;
use throughline_core::BrokerError;
use throughline_core::broker::{BoxFuture, Pattern, Received, Reception, Seldom, Subscriber, Subscription};
use throughline_core::message::Source;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::backlog::{self, Backlog};
use crate::connection::Connection;
use crate::delivery::{LastSubject, from_core};
use crate::link::Link;
use crate::losses::Losses;
use crate::protocol::{has_space, is_of_server, shown};
use crate::{Subject, error, semconv};

/// How long a closing subscription waits for the client when nothing more comes.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Receives from core NATS. The client subscribes again after a reconnect by itself; after its connection task was lost
/// this does.
///
/// What has arrived is in the backlog, which two parties look into: `receive`, which holds it only while it waits for a message
/// that is not there yet, and the keeper, which empties the client's own buffer while the handlers are busy.
pub(crate) struct CoreSubscriber {
    connection: Arc<Connection>,
    link: Arc<Link>,
    backlog: Arc<Mutex<Backlog>>,
    /// What comes before the backlog: taken from it in one go.
    burst: VecDeque<Message>,
    keeper: JoinHandle<()>,
    losses: Arc<Losses>,
    source: Arc<Source>,
    last: LastSubject,
    /// Messages that ask for an answer where none may go.
    no_address: Seldom,
    subject: Arc<str>,
    group: Option<String>,
    /// When the end is to be over, once it has begun.
    deadline: Instant,
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
        let held = subscription.native::<Subject>().map_or(Subject::BUFFER, Subject::held);
        let losses = Arc::new(Losses::new(Arc::clone(&subject), group.clone(), held));
        let backlog = Arc::new(Mutex::new(Backlog::new(subscriber, held, Arc::clone(&losses))));
        Ok(Self {
            refused: refused(connection, &subject),
            connection: Arc::clone(connection),
            link,
            keeper: tokio::spawn(backlog::keep(Arc::clone(&backlog))),
            backlog,
            burst: VecDeque::new(),
            losses,
            source,
            last: LastSubject::new(),
            no_address: Seldom::default(),
            subject,
            group,
            deadline: Instant::now(),
        })
    }

    /// Subscribes on the link that comes after a lost one. Cancel safe.
    async fn subscribe_again(&mut self) -> Result<(), BrokerError> {
        let next = self.connection.links.after(&self.link).await;
        let link = next.ok_or_else(|| error::connection_ended(&self.subject))?;
        self.connection.denied.forget(&self.subject);
        let mut backlog = self.backlog.lock().await;
        match subscribe(&link, &self.subject, self.group.clone()).await {
            Ok(subscriber) => {
                self.link = link;
                backlog.replace(subscriber);
            }
            // Lost again; the next call sees it.
            Err(_) if link.is_gone() => self.link = link,
            Err(failed) => return Err(failed),
        }
        Ok(())
    }

    fn received(&mut self, message: Message) -> Received {
        let own_inbox = &*self.connection.inbox_prefix;
        if message.reply.as_deref().is_some_and(|reply| is_of_server(reply, own_inbox)) {
            tell_of_no_address(&mut self.no_address, &message, self.group.as_deref());
        }
        Received::new(from_core(message, &mut self.last, self.connection.reading()))
    }
}

/// Tells of a message whose answer would go to the server itself.
fn tell_of_no_address(seldom: &mut Seldom, message: &Message, group: Option<&str>) {
    let Some(count) = seldom.note(1) else { return };
    warn!(
        destination = %shown(&message.subject),
        group,
        reply = message.reply.as_deref().map(shown),
        count,
        "a message asks for its answer at a subject of the server's own: it is handled, and not answered"
    );
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

    fn prepare(&mut self, reception: Reception) {
        self.losses.observe(&self.source, Arc::clone(reception.observer()));
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        if let Some(message) = self.burst.pop_front() {
            return Ok(self.received(message));
        }
        loop {
            let arrived = {
                let mut backlog = self.backlog.lock().await;
                tokio::select! {
                    biased;
                    arrived = backlog.next() => arrived,
                    denied = self.refused.as_mut() => {
                        self.refused = refused(&self.connection, &self.subject);
                        return Err(denied);
                    }
                }
            };
            match arrived {
                Some(message) => return Ok(self.received(message)),
                None => self.subscribe_again().await?,
            }
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        // The end of the client's subscription is `receive`'s to heal.
        if self.burst.is_empty() {
            self.backlog.try_lock().ok()?.fill(&mut self.burst);
        }
        let message = self.burst.pop_front()?;
        Some(Ok(self.received(message)))
    }

    async fn close(&mut self, deadline: Instant) {
        self.deadline = deadline;
        let stop = async {
            // The server forgets what it has delivered, so all that it sent is to arrive before the client forgets the
            // subscription.
            if self.link.is_connected() {
                let _ = self.link.round_trip().await;
            }
            self.backlog.lock().await.stop().await;
        };
        // A server that does not answer gets no more time than all that ends together.
        let _ = timeout_at(deadline, stop).await;
    }

    async fn drain(&mut self) -> Option<Received> {
        if let Some(message) = self.burst.pop_front() {
            return Some(self.received(message));
        }
        let until = self.deadline.min(Instant::now() + DRAIN_WAIT);
        let message = self.backlog.lock().await.next_until(until).await?;
        Some(self.received(message))
    }
}

impl Drop for CoreSubscriber {
    fn drop(&mut self) {
        self.keeper.abort();
        // What is still here is lost with the backlog, which says so.
        match self.backlog.try_lock() {
            Ok(mut backlog) => backlog.take_back(&mut self.burst),
            Err(_) => self.losses.ended(self.burst.len() as u64),
        }
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

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use throughline_core::BrokerError;
use throughline_core::broker::{
    BrokerErrorKind, Observe, Received, Reception, RetryRoute, Settle, Subscriber, Subscription,
};
use throughline_core::message::Source;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::delivery::Settler;
use crate::retry::ImitatedRoute;
use crate::server::{Connection, Member, Queue, Server, Taken, Turn};

/// Takes the messages of one subscription out of its queue.
pub(crate) struct Receiver {
    server: Arc<Server>,
    connection: Arc<Connection>,
    queue: Arc<Queue>,
    member: Member,
    source: Arc<Source>,
    /// Settles all messages of the subscription.
    settle: Arc<dyn Settle>,
    observer: Option<Arc<dyn Observe>>,
    redelivers: bool,
    retry_route: Option<Arc<dyn RetryRoute>>,
    left: bool,
}

impl Receiver {
    /// Starts a subscription.
    pub(crate) fn join(
        server: &Arc<Server>,
        connection: &Arc<Connection>,
        subscription: &Subscription,
        source: Source,
    ) -> Self {
        let (queue, member) = server.join(subscription);
        connection.subscribed(&queue);
        let settler = Settler { queue: Arc::clone(&queue), connection: Arc::clone(connection) };
        let retry_route = subscription.retry_route().map(|route| Arc::new(ImitatedRoute(Arc::clone(route))) as Arc<_>);
        Self {
            server: Arc::clone(server),
            connection: Arc::clone(connection),
            queue,
            member,
            source: Arc::new(source),
            settle: Arc::new(settler),
            observer: None,
            redelivers: subscription.redelivers(),
            retry_route,
            left: false,
        }
    }

    fn leave(&mut self) {
        if !self.left {
            self.left = true;
            self.server.leave(&self.queue, self.member);
        }
        if let Some(observer) = self.observer.take() {
            self.connection.forget(&observer);
        }
    }

    /// Asks the queue, after the others of the group where it is their turn.
    async fn take(&self) -> Taken {
        match self.queue.take(self.member, Turn::First, &self.settle) {
            Taken::OthersFirst => {
                yield_now().await;
                self.queue.take(self.member, Turn::GaveWay, &self.settle)
            }
            taken => taken,
        }
    }

    async fn wait(&self) -> Result<Received, BrokerError> {
        let mut change = pin!(self.queue.change());
        loop {
            if self.connection.is_lost() {
                self.queue.hand_on();
                self.connection.ready().await?;
            }
            self.queue.announce(change.as_mut());
            match self.take().await {
                Taken::Message(received) => return Ok(received),
                Taken::Ended => return Err(self.ended()),
                Taken::Nothing(due) => Queue::wait(change.as_mut(), due).await,
                Taken::OthersFirst => {}
            }
            change.set(self.queue.change());
        }
    }

    fn ended(&self) -> BrokerError {
        let name = self.source.destination.as_deref().or(self.source.template.as_deref()).unwrap_or("several channels");
        BrokerError::new(BrokerErrorKind::Ended, "ended", format!("the subscription to `{name}` has ended"))
    }
}

#[async_trait]
impl Subscriber for Receiver {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    fn redelivers(&self) -> bool {
        self.redelivers
    }

    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        self.retry_route.clone()
    }

    fn prepare(&mut self, reception: Reception) {
        self.connection.observe(reception.observer());
        self.observer = Some(Arc::clone(reception.observer()));
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        if self.left {
            return Err(self.ended());
        }
        if self.connection.is_lost() {
            return self.wait().await;
        }
        match self.take().await {
            Taken::Message(received) => Ok(received),
            Taken::Ended => Err(self.ended()),
            Taken::Nothing(_) | Taken::OthersFirst => self.wait().await,
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        if self.left {
            return Some(Err(self.ended()));
        }
        if self.connection.is_lost() {
            return self.connection.check_hope().err().map(Err);
        }
        match self.queue.take(self.member, Turn::First, &self.settle) {
            Taken::Message(received) => Some(Ok(received)),
            Taken::Ended => Some(Err(self.ended())),
            Taken::Nothing(_) | Taken::OthersFirst => None,
        }
    }

    async fn close(&mut self, _deadline: Instant) {
        self.leave();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Received, Subscriber};
use throughline_core::message::Source;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::server::{Member, Queue, Server, Taken, Turn};

/// Takes the messages of one subscription out of its queue.
pub(crate) struct Receiver {
    server: Arc<Server>,
    queue: Arc<Queue>,
    member: Member,
    source: Arc<Source>,
    left: bool,
}

impl Receiver {
    pub(crate) const fn new(server: Arc<Server>, queue: Arc<Queue>, member: Member, source: Arc<Source>) -> Self {
        Self { server, queue, member, source, left: false }
    }

    fn leave(&mut self) {
        if !self.left {
            self.left = true;
            self.server.leave(&self.queue, self.member);
        }
    }

    /// Asks the queue, after the others of the group where it is their turn.
    async fn take(&self) -> Taken {
        match self.queue.take(self.member, Turn::First) {
            Taken::OthersFirst => {
                yield_now().await;
                self.queue.take(self.member, Turn::GaveWay)
            }
            taken => taken,
        }
    }

    async fn wait(&self) -> Result<Received, BrokerError> {
        let mut change = pin!(self.queue.change());
        loop {
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
        true
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        if self.left {
            return Err(self.ended());
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
        match self.queue.take(self.member, Turn::First) {
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

use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use tracing::debug;

use crate::broker::PublishError;
use crate::message::{Delivery, Destination, Envelope, Failure, Outcome, Settlement};
use crate::middleware::{Middleware, Next, Settler};
use crate::publish::Publisher;
use crate::telemetry::Scope;

/// Publishes and confirms what a handler replied, before the delivery is settled. It stands between the dead letter and the
/// user's middleware: a reply that cannot be published fails the delivery like any other error.
pub(super) struct Replies {
    publisher: Publisher,
    destinations: Vec<Destination>,
}

#[async_trait]
impl Middleware for Replies {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let asked = delivery.clone();
        let outcome = next.run(delivery).await;
        // Where telemetry is ordinary middleware, its span has ended by now and is the parent all the same (SPAN-38).
        let inner = outcome.extension::<Settler>().map(|settler| settler.scope.clone());
        let context = inner.as_ref().map_or_else(Context::current, |scope| scope.context().clone());
        let scope = inner.unwrap_or_else(|| asked.telemetry_scope().into_owned());
        let (outcome, each) = outcome.take_each();
        let was_acked = *outcome.settlement() == Settlement::Ack;
        let outcome = self.settle_replies(outcome, &asked).with_context(context.clone()).await;
        let has_failed = was_acked && *outcome.settlement() != Settlement::Ack;
        let mut settled = Vec::with_capacity(each.len());
        for (index, own) in each.into_iter().enumerate() {
            let message = asked.messages().get(index).unwrap_or(&asked);
            let context = scope.messages().get(index).map_or(&context, Scope::context).clone();
            settled.push(match own {
                // The reply of the whole batch is lost with them, so they do not stay acknowledged.
                Some(own) if has_failed && *own.settlement() == Settlement::Ack => None,
                Some(own) => Some(self.settle_replies(own, message).with_context(context).await),
                None => None,
            });
        }
        outcome.with_each(settled)
    }
}

impl Replies {
    pub(super) const fn new(publisher: Publisher, destinations: Vec<Destination>) -> Self {
        Self { publisher, destinations }
    }

    /// Publishes the replies of one outcome; one that fails makes it a failure.
    async fn settle_replies(&self, mut outcome: Outcome, asked: &Delivery) -> Outcome {
        let replies = outcome.take_replies();
        if *outcome.settlement() != Settlement::Ack {
            return outcome;
        }
        for reply in replies {
            if let Err(error) = self.reply(reply, asked).await {
                return Outcome::failed(Failure::new(error.error_type().to_owned(), error).by_framework());
            }
        }
        outcome
    }

    /// Sends a reply where the subscription says and to the requester; an addressed one goes where it says itself.
    async fn reply(&self, reply: Envelope, asked: &Delivery) -> Result<(), PublishError> {
        let reply = match asked.correlation_id() {
            Some(id) if reply.correlation_id().is_none() => reply.with_correlation_id(id),
            _ => reply,
        };
        if reply.is_addressed() {
            return self.publisher.publish_envelope(reply).await.map(drop);
        }
        let destinations: Vec<&Destination> = self.destinations.iter().chain(asked.reply_to()).collect();
        if destinations.is_empty() {
            debug!(
                destination = asked.destination(),
                "a reply has nowhere to go: nobody asked, and the subscription has no `reply_to`"
            );
        }
        for destination in destinations {
            self.publisher.publish_envelope(reply.clone().with_destination(destination.clone())).await?;
        }
        Ok(())
    }
}

use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use tracing::debug;

use crate::broker::PublishError;
use crate::message::{Delivery, Destination, Envelope, Failure, Outcome, Settlement};
use crate::middleware::Settler;
use crate::publish::Publisher;
use crate::telemetry::Scope;

/// Publishes what a handler replied, where the subscription says and to the requester.
pub(super) struct Replies {
    publisher: Publisher,
    destinations: Vec<Destination>,
}

impl Replies {
    pub(super) const fn new(publisher: Publisher, destinations: Vec<Destination>) -> Self {
        Self { publisher, destinations }
    }

    pub(super) const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Publishes all replies of an outcome and returns when they are confirmed; one that fails makes its outcome a failure.
    pub(super) async fn publish(&self, outcome: Outcome, asked: &Delivery, scope: Option<Scope>) -> Outcome {
        // Where telemetry is ordinary middleware, its span has ended by now and is the parent all the same (SPAN-38).
        let inner = outcome.extension::<Settler>().and_then(|settler| settler.scope.clone());
        let asked_for = outcome.surroundings().and_then(Scope::from_surroundings);
        let scope = inner.or(asked_for).or(scope);
        let context = scope.as_ref().map_or_else(Context::current, |scope| scope.context().clone());
        let of_messages = scope.as_ref().map_or(&[][..], Scope::members);
        let (outcome, each) = outcome.take_each();
        let was_acked = *outcome.settlement() == Settlement::Ack;
        let outcome = self.settle_replies(outcome, asked).with_context(context.clone()).await;
        let has_failed = was_acked && *outcome.settlement() != Settlement::Ack;
        let mut settled = Vec::with_capacity(each.len());
        for (index, own) in each.into_iter().enumerate() {
            let message = asked.messages().get(index).unwrap_or(asked);
            let context = of_messages.get(index).map_or(&context, Scope::context).clone();
            settled.push(match own {
                // The reply of the whole batch is lost with them, so they do not stay acknowledged.
                Some(own) if has_failed && *own.settlement() == Settlement::Ack => None,
                Some(own) => Some(self.settle_replies(own, message).with_context(context).await),
                None => None,
            });
        }
        outcome.with_each(settled)
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

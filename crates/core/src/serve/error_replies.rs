use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;

use crate::broker::ErrorReplyHeaders;
use crate::handler::RouteOptions;
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Envelope, Failure, Fate, Outcome, Settlement, header_text};
use crate::middleware::{Middleware, Next, Outlet as _, panic_failure};
use crate::publish::Publisher;
use crate::telemetry::Scope;

/// The code of an error reply to a message that a handler decided to reject.
const REJECTED: u16 = 500;

/// Publishes error replies: what requesters get whose messages are given up.
pub(super) struct ErrorReplies {
    publisher: Publisher,
    headers: ErrorReplyHeaders,
    /// Then a message that can be published nowhere stays, and comes again.
    stops_if_unpublishable: bool,
}

impl ErrorReplies {
    /// `None` where all that is published counts with the settlement: a reply that fails would take the rejection with it.
    pub(super) fn new(publisher: &Publisher, options: &RouteOptions) -> Option<Self> {
        let transport = publisher.transport();
        (!transport.is_atomic()).then(|| Self {
            headers: transport.error_reply_headers(),
            publisher: publisher.clone(),
            stops_if_unpublishable: options.stops_if_unpublishable,
        })
    }

    /// Answers each message that is given up, once. A reply that fails changes nothing.
    pub(super) async fn publish(
        &self,
        outcome: &Outcome,
        asked: &Delivery,
        scope: Option<&Scope>,
        log: &SubscriptionLog,
    ) {
        let of_messages = scope.map_or(&[][..], Scope::members);
        for (index, message) in asked.messages().iter().enumerate() {
            let own = outcome.each().get(index).and_then(Option::as_ref).unwrap_or(outcome);
            let Some(reply) = self.reply_to(message, own) else { continue };
            let scope = of_messages.get(index).or(scope);
            let context = scope.map_or_else(Context::current, |scope| scope.context().clone());
            let publishing = async move { self.publisher.publish_envelope(reply).await };
            let published = AssertUnwindSafe(publishing).catch_unwind().with_context(context).await;
            match published {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => report(log, message, &error.into_failure()),
                Err(panic) => report(log, message, &panic_failure(panic)),
            }
        }
    }

    fn reply_to(&self, message: &Delivery, outcome: &Outcome) -> Option<Envelope> {
        let address = message.reply_to()?;
        if self.stops_if_unpublishable && matches!(outcome.fate(), Fate::Unpublishable) {
            return None;
        }
        let (code, text) = told(outcome)?;
        let reply = Envelope::new(address.clone(), Bytes::new())
            .with_header(self.headers.code, code.to_string())
            .with_header(self.headers.text, header_text::own(&text))
            .into_error_reply();
        Some(match message.correlation_id() {
            Some(id) => reply.with_correlation_id(id),
            None => reply,
        })
    }
}

/// What a requester is told; `None` where its message is not given up.
fn told(outcome: &Outcome) -> Option<(u16, Cow<'_, str>)> {
    let reason = match (outcome.settlement(), outcome.fate()) {
        (Settlement::Reject { .. }, Fate::Unpublishable) => "rejected",
        (Settlement::Reject { reason }, _) | (_, Fate::Buried(reason)) => reason,
        _ => return None,
    };
    Some(match outcome.own_failure() {
        Some(failure) => (failure.answer_code(), failure.answer_text().into()),
        None => (REJECTED, reason.into()),
    })
}

fn report(log: &SubscriptionLog, asked: &Delivery, failure: &Failure) {
    let (destination, group, attempt) = (asked.destination(), log.group(), asked.attempt());
    let (error_type, error) = (failure.error_type(), log.error_text(failure));
    log_line!(
        log,
        WARN,
        "a requester was not told that its request failed; the message counts as decided",
        destination,
        group,
        attempt,
        error_type,
        error = error.as_deref()
    );
}

/// Where the chain of a request tells the requester: within the dead letter, which may have to wait, and around the place where
/// messages wait for another attempt, which gives them up.
pub(super) struct TellRequesters;

impl TellRequesters {
    /// Puts it into the chain that stands around the handlers of other messages.
    pub(super) fn within(around: &[Arc<dyn Middleware>], has_dead_letter: bool) -> Vec<Arc<dyn Middleware>> {
        let mut chain = around.to_vec();
        chain.insert(usize::from(has_dead_letter).min(chain.len()), Arc::new(Self));
        chain
    }
}

#[async_trait]
impl Middleware for TellRequesters {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let outcome = next.run(delivery).await;
        next.tell_requesters(&outcome).await;
        outcome
    }
}

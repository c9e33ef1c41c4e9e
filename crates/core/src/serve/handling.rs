use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::error_replies::{ErrorReplies, TellRequesters};
use super::failed::{Count, Failed};
use super::patience::{Patience, ends_here};
use super::phase::{Phase, until_aborting};
use super::replies::Replies;
use super::settle::with_heartbeats;
use super::work::Work;
use crate::broker::{BoxFuture, Publish, PublishError, Received, Subscriber};
use crate::extract::Verdicts;
use crate::handler::{ErasedHandler, RouteOptions};
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Envelope, Failure, Outcome, Receipt, Runtime, Settlement};
use crate::middleware::{
    Attempts, DeadLetter, Endpoint, InnerTelemetry, Middleware, Next, Outlet as _, Overrides, PolicyInForce,
    RetryLater, RetryPolicy, Settler, decide, panicked, process_with,
};
use crate::publish::Publisher;
use crate::telemetry::{Consumer, Instrumentation, Receiving, Scope, ScopeState, run_in};

/// What a delivery of one subscription passes on the way to its outcome: telemetry, what takes care of failures, middleware, the handler
/// and its replies.
pub(super) struct Stages {
    handler: Arc<dyn ErasedHandler<()>>,
    /// What takes care of messages that failed: the dead letter, and within it the place where they wait for another attempt.
    around: Vec<Arc<dyn Middleware>>,
    /// The same for messages with a reply address, and what tells their requesters.
    around_requests: Vec<Arc<dyn Middleware>>,
    chain: Vec<Arc<dyn Middleware>>,
    replies: Replies,
    error_replies: Option<ErrorReplies>,
    /// What judges failures, where no `Retry` does.
    policy: Arc<RetryPolicy>,
    consumer: Option<Consumer>,
    /// For telemetry that is placed as ordinary middleware.
    overrides: Option<Overrides>,
    /// How far the scope of a message is to come before anything runs.
    scope_state: ScopeState,
    /// Whether nothing but telemetry, on its defaults, can stand around the chain.
    may_be_bare: bool,
    receive_spans: bool,
    pub(super) failed: Failed,
    pub(super) phase: watch::Receiver<Phase>,
    runtime: Arc<Runtime>,
}

impl Stages {
    pub(super) fn new(
        subscriber: &dyn Subscriber,
        transport: Arc<dyn Publish>,
        handler: Arc<dyn ErasedHandler<()>>,
        options: &RouteOptions,
        instrumentation: Option<&Instrumentation>,
        phase: watch::Receiver<Phase>,
        log: Arc<SubscriptionLog>,
    ) -> Self {
        let source = subscriber.source();
        let overrides = Overrides { parent: options.parent, trust: options.trust };
        let consumer =
            instrumentation.map(|instrumentation| overrides.apply(instrumentation.consumer(Arc::clone(&source))));
        let is_overridden = overrides.parent.is_some() || overrides.trust.is_some();
        let publisher = Publisher::of_app(transport, options.middleware.clone(), instrumentation);
        let telemetry = instrumentation.map(Instrumentation::to_any);
        let runtime = Runtime { telemetry, source: Arc::clone(&source), services: Box::new(publisher.clone()) };
        let route = subscriber.retry_route();
        let failed =
            Failed::new(log, options.dead_letter.as_ref().map(DeadLetter::destination).cloned(), route.clone());
        let chosen = options.retry_policy();
        let policy = chosen.cloned().unwrap_or_else(RetryPolicy::unchosen);
        // Where messages wait in a place of their own, that counts their attempts.
        let policy = if route.is_some() { policy.uncounted() } else { policy };
        let retry_later = route.map(|route| Arc::new(RetryLater::new(route)) as Arc<dyn Middleware>);
        let dead_letter = options.dead_letter.clone().map(|dead_letter| Arc::new(dead_letter) as Arc<dyn Middleware>);
        let around: Vec<_> = dead_letter.into_iter().chain(retry_later).collect();
        let error_replies = ErrorReplies::new(&publisher, options);
        let around_requests = match error_replies {
            Some(_) => TellRequesters::within(&around, options.dead_letter.is_some()),
            None => around.clone(),
        };
        Self {
            scope_state: match (options.middleware.is_empty(), handler.uses_scope()) {
                (false, _) => ScopeState::Open,
                (true, true) => ScopeState::Closed,
                (true, false) => ScopeState::Absent,
            },
            may_be_bare: !is_overridden && around.is_empty(),
            receive_spans: instrumentation.is_some_and(|instrumentation| instrumentation.engine.settings.receive_spans),
            handler,
            around,
            around_requests,
            chain: options.middleware.clone(),
            replies: Replies::new(publisher, options.replies.clone(), chosen.cloned()),
            error_replies,
            policy: Arc::new(policy),
            overrides: Some(overrides).filter(|_| is_overridden && consumer.is_none()),
            consumer,
            failed,
            phase,
            runtime: Arc::new(runtime),
        }
    }

    /// Handles a message or a batch once. A panic outside of what the chain catches is a failure too.
    pub(super) async fn attempt(&self, work: &Work) -> Handled {
        let received = work.messages();
        let batch;
        let asked = match work {
            Work::Single(received) => &received.delivery,
            Work::Batch(received) => {
                batch = self.batch(received);
                &batch
            }
        };
        let handling = AssertUnwindSafe(async {
            let delivery = if asked.is_batch() { asked.clone() } else { self.equip(asked.clone()) };
            let inner_telemetry = InnerTelemetry::new(self.overrides);
            let (policy, attempt) = (PolicyInForce::new(&self.policy), AtomicU32::new(0));
            let handling = Handling { stages: self, received, asked, inner_telemetry, policy, attempt };
            // Where neither a span nor a heartbeat stands around it: each future less on the way is felt here.
            if self.is_bare(received, asked) {
                return handling.without_span(delivery).await;
            }
            with_heartbeats(&self.failed.log, received, pin!(handling.process(delivery))).await
        });
        match handling.catch_unwind().await {
            Ok(handled) => handled,
            Err(panic) => {
                let log = &self.failed.log;
                let (destination, group, attempt) = (asked.destination(), log.group(), asked.attempt());
                log_line!(
                    log,
                    ERROR,
                    "telemetry or the framework panicked around a handler; the message follows the failure rule",
                    destination,
                    group,
                    attempt
                );
                let outcome = decide(panicked(panic), &Attempts::of(asked), || Arc::clone(&self.policy));
                if let Some(replies) = &self.error_replies {
                    Box::pin(replies.publish(&outcome, asked, None, &self.failed.log)).await;
                }
                Handled { outcome, settler: None }
            }
        }
    }

    pub(super) fn patience<'a>(&'a self, received: &'a [Received]) -> Patience<'a> {
        Patience { received, phase: &self.phase, log: &self.failed.log }
    }

    /// Notes in a delivery that is handled again why that is so.
    // ATTR-C-28.
    pub(super) fn note_cause(&self, delivery: &mut Delivery, failure: Option<&Failure>) {
        let engine = self.consumer.as_ref();
        let error_type = failure.map(|failure| match engine {
            Some(consumer) => consumer.error_type_of(failure),
            None => failure.error_type().into(),
        });
        delivery.set_retry_cause(error_type.as_deref());
    }

    /// Starts the receive span, where the user wants one.
    // SPAN-30.
    pub(super) fn receiving(&self) -> Option<Receiving> {
        self.consumer.as_ref().filter(|_| self.receive_spans).map(Consumer::receive)
    }

    fn batch(&self, received: &[Received]) -> Delivery {
        Delivery::batch(received.iter().map(|received| self.equip(received.delivery.clone())).collect())
    }

    fn equip(&self, mut delivery: Delivery) -> Delivery {
        delivery.set_runtime(Arc::clone(&self.runtime));
        delivery
    }

    /// Whether only the chain stands around the handler: no dead letter, no retry elsewhere, no heartbeats, and no telemetry that has
    /// anything to do.
    fn is_bare(&self, received: &[Received], asked: &Delivery) -> bool {
        let passes = |consumer: &Consumer| self.chain.is_empty() && consumer.passes_through(asked.has_headers());
        self.may_be_bare
            && !asked.is_batch()
            && received.iter().all(|message| message.heartbeat().is_none())
            && self.consumer.as_ref().is_none_or(passes)
    }
}

/// What came of a delivery, and what its settlement is recorded with.
pub(super) struct Handled {
    pub(super) outcome: Outcome,
    pub(super) settler: Option<Settler>,
}

impl Handled {
    /// What came of one message.
    pub(super) fn outcome_of(&self, index: usize) -> &Outcome {
        self.outcome.each().get(index).and_then(Option::as_ref).unwrap_or(&self.outcome)
    }
}

/// A message or a batch that is being handled, with what stands around its handler.
struct Handling<'a> {
    stages: &'a Stages,
    received: &'a [Received],
    asked: &'a Delivery,
    inner_telemetry: InnerTelemetry,
    policy: PolicyInForce<'a>,
    /// Which attempt in place it is; zero where there was no other one.
    attempt: AtomicU32,
}

impl Handling<'_> {
    async fn process(&self, delivery: Delivery) -> Handled {
        if let Some(consumer) = &self.stages.consumer {
            let run = |delivery| self.handle(delivery);
            let (state, inner) = (self.stages.scope_state, &self.inner_telemetry);
            let (outcome, settler) = process_with(consumer, delivery, state, inner, run).await;
            return Handled { outcome, settler: Some(settler) };
        }
        self.without_span(delivery).await
    }

    /// Where telemetry is ordinary middleware, that says what the settlement is recorded with.
    async fn without_span(&self, delivery: Delivery) -> Handled {
        let outcome = self.handle(delivery).await;
        Handled { outcome, settler: self.inner_telemetry.take_settler() }
    }

    async fn handle(&self, delivery: Delivery) -> Outcome {
        let is_asked = self.asked.messages().iter().any(|message| message.reply_to().is_some());
        let around = if is_asked { &self.stages.around_requests } else { &self.stages.around };
        if around.is_empty() {
            let outcome = self.answer(delivery).await;
            self.report(&outcome);
            return outcome;
        }
        let inner = Answering { handling: self, scope: delivery.scope_at(ScopeState::Absent) };
        Next::new(around, &inner).run(delivery).await
    }

    /// Logs what failed, and what is to become of it, before anything is forwarded.
    fn report(&self, outcome: &Outcome) {
        if *outcome.settlement() == Settlement::Ack && outcome.each().is_empty() {
            return;
        }
        // Where telemetry is ordinary middleware, its span has ended and is not current here.
        let _current = self.inner_telemetry.scope().map(|scope| scope.context().clone().attach());
        for (index, message) in self.asked.messages().iter().enumerate() {
            let (settlement, failure) = (outcome.settlement_of(index), outcome.failure_of(index));
            self.stages.failed.settlement(message, settlement, failure, self.count(message));
        }
    }

    /// Which attempt of a message this is, and of how many.
    fn count(&self, message: &Delivery) -> Count {
        let in_place = Some(self.attempt.load(Ordering::Relaxed)).filter(|attempt| *attempt > 0);
        let limits = [self.policy.get().most_attempts(), self.stages.failed.log.delivery_limit()];
        let attempt = in_place.unwrap_or_else(|| message.attempt());
        Count { attempt, attempts: limits.into_iter().flatten().min() }
    }

    /// Runs middleware and handler, and publishes and confirms what they replied before the message is settled. What the broker does not
    /// deliver again is a failure when the app drops its handlers, so that it gets to its dead letter, and its requester an answer.
    async fn answer(&self, delivery: Delivery) -> Outcome {
        let scope = delivery.scope_at(ScopeState::Absent);
        if !self.received.iter().any(ends_here) {
            return self.answer_within(delivery, scope).await;
        }
        let answering = Box::pin(self.answer_within(delivery, scope));
        match until_aborting(&self.stages.phase, answering).await {
            Some(outcome) => outcome,
            None => decide(Outcome::failed(cancelled()), &Attempts::of(self.asked), || self.policy.get()),
        }
    }

    /// A reply that can never be published fails the delivery like any other error.
    async fn answer_within(&self, delivery: Delivery, scope: Option<Scope>) -> Outcome {
        let outcome = Next::new(&self.stages.chain, self).run(delivery).await;
        if outcome.has_replies() { self.reply(outcome, scope).await } else { outcome }
    }

    /// The scope is found as that of a reply is.
    async fn tell_requesters_within(&self, outcome: &Outcome, scope: Option<&Scope>) {
        let Some(replies) = &self.stages.error_replies else { return };
        let scope = self.inner_telemetry.scope().or_else(|| outcome.scope()).or_else(|| scope.cloned());
        replies.publish(outcome, self.asked, scope.as_ref(), &self.stages.failed.log).await;
    }

    fn reply(&self, outcome: Outcome, scope: Option<Scope>) -> BoxFuture<'_, Outcome> {
        let replying = async move {
            let patience = self.stages.patience(self.received);
            let inner = self.inner_telemetry.scope();
            self.stages.replies.publish(outcome, self.asked, inner, scope, &patience).await
        };
        Box::pin(
            AssertUnwindSafe(replying).catch_unwind().map(|replied| {
                decide(replied.unwrap_or_else(panicked), &Attempts::of(self.asked), || self.policy.get())
            }),
        )
    }
}

impl Endpoint for Handling<'_> {
    fn call(&self, mut delivery: Delivery) -> BoxFuture<'_, Outcome> {
        let handler = &self.stages.handler;
        if !delivery.is_batch() {
            return handler.call(delivery, &());
        }
        let verdicts = Verdicts::new(Arc::clone(&self.stages.failed.log));
        delivery.insert_extension(verdicts.clone());
        let handled = AssertUnwindSafe(handler.call(delivery, &())).catch_unwind();
        // Caught here already: a panic must not take the verdicts on single messages with it.
        Box::pin(handled.map(move |handled| handled.unwrap_or_else(panicked).with_each(verdicts.take())))
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(self.stages.replies.publisher().publish_envelope(envelope))
    }

    fn transport(&self) -> &dyn Publish {
        self.stages.replies.publisher().transport()
    }

    fn wait(&self, delay: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.stages.patience(self.received).wait(delay).await })
    }

    fn tell_requesters<'a>(&'a self, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(self.tell_requesters_within(outcome, None))
    }

    fn inner_telemetry(&self) -> &InnerTelemetry {
        &self.inner_telemetry
    }

    fn policy(&self) -> &PolicyInForce<'_> {
        &self.policy
    }

    fn log(&self) -> &SubscriptionLog {
        &self.stages.failed.log
    }

    fn attempt_failed(&self, delivery: &Delivery, failure: &Failure, delay: Duration) {
        self.stages.failed.tried_again(delivery, failure, self.count(delivery), delay);
    }

    fn attempt_begins(&self, attempt: u32) {
        self.attempt.store(attempt, Ordering::Relaxed);
    }
}

/// What dead letters and retries elsewhere stand before.
struct Answering<'a> {
    handling: &'a Handling<'a>,
    scope: Option<Scope>,
}

impl Endpoint for Answering<'_> {
    fn call(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let outcome = self.handling.answer(delivery).await;
            self.handling.report(&outcome);
            outcome
        })
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        // Like a reply it sees what the handler has changed, whether or not its scope was open before.
        let context = self.scope.as_ref().map(|scope| scope.context().clone());
        Box::pin(run_in(context, self.handling.publish(envelope)))
    }

    fn transport(&self) -> &dyn Publish {
        self.handling.transport()
    }

    fn wait(&self, delay: Duration) -> BoxFuture<'_, bool> {
        self.handling.wait(delay)
    }

    fn tell_requesters<'a>(&'a self, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(self.handling.tell_requesters_within(outcome, self.scope.as_ref()))
    }

    fn inner_telemetry(&self) -> &InnerTelemetry {
        &self.handling.inner_telemetry
    }

    fn policy(&self) -> &PolicyInForce<'_> {
        &self.handling.policy
    }

    fn log(&self) -> &SubscriptionLog {
        self.handling.log()
    }

    fn attempt_failed(&self, delivery: &Delivery, failure: &Failure, delay: Duration) {
        self.handling.attempt_failed(delivery, failure, delay);
    }

    fn attempt_begins(&self, attempt: u32) {
        self.handling.attempt_begins(attempt);
    }
}

/// The code a requester is told when the app ends.
const UNAVAILABLE: u16 = 503;

/// The failure of a message whose handler was dropped at the end of the app.
fn cancelled() -> Failure {
    let text = "the app ended before the message was handled, and the broker delivers it no more";
    Failure::new("cancelled", text).by_framework().with_code(UNAVAILABLE)
}

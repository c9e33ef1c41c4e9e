use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use super::alarm::Alarm;
use super::batching::Work;
use super::dropped::Dropped;
use super::patience::{Patience, is_final};
use super::phase::{Phase, until_aborting};
use super::replies::Replies;
use super::settle::{settle_one, with_heartbeats};
use crate::broker::{Publish, PublishError, Received, Subscriber};
use crate::extract::Verdicts;
use crate::handler::{ErasedHandler, RouteOptions};
use crate::later::later;
use crate::message::{Delivery, Envelope, Failure, Outcome, Receipt, Runtime, Settlement};
use crate::middleware::{
    Attempts, Endpoint, Interrupted, Middleware, Next, Outlet as _, Overrides, RetryLater, ScopeUse, Settler,
    Unpublishable, decide, panicked, process_with,
};
use crate::publish::Publisher;
use crate::telemetry::{Consumer, Incoming, Instrumentation, Receiving, Scope, run_in};

/// Takes a delivery of one subscription through telemetry, middleware and handler, publishes the replies and settles.
pub(super) struct Dispatcher {
    handler: Arc<dyn ErasedHandler<()>>,
    /// What takes care of messages that failed: the dead letter, and within it the place where they wait for another attempt.
    around: Vec<Arc<dyn Middleware>>,
    chain: Vec<Arc<dyn Middleware>>,
    replies: Replies,
    concurrency: usize,
    consumer: Option<Consumer>,
    /// For telemetry that is placed as ordinary middleware.
    overrides: Option<Overrides>,
    receive_spans: bool,
    scope_use: ScopeUse,
    /// Whether nothing but telemetry can stand around the chain.
    may_be_bare: bool,
    redelivers: bool,
    stops_if_unpublishable: bool,
    alarm: Alarm,
    pub(super) dropped: Dropped,
    phase: watch::Receiver<Phase>,
    runtime: Arc<Runtime>,
}

impl Dispatcher {
    pub(super) fn new(
        subscriber: &dyn Subscriber,
        transport: Arc<dyn Publish>,
        handler: Arc<dyn ErasedHandler<()>>,
        options: RouteOptions,
        instrumentation: Option<&Instrumentation>,
        phase: watch::Receiver<Phase>,
        alarm: Alarm,
    ) -> Self {
        let source = subscriber.source();
        let overrides = Overrides { parent: options.parent, trust: options.trust };
        let consumer =
            instrumentation.map(|instrumentation| overrides.apply(instrumentation.consumer(Arc::clone(&source))));
        let is_overridden = overrides.parent.is_some() || overrides.trust.is_some();
        let publisher = Publisher::of_app(transport, options.middleware.clone(), instrumentation);
        let telemetry = instrumentation.map(Instrumentation::to_any);
        let runtime = Runtime { telemetry, source: Arc::clone(&source), services: Box::new(publisher.clone()) };
        let retry_later = subscriber.retry_route().map(|route| Arc::new(RetryLater::new(route)) as Arc<dyn Middleware>);
        let dead_letter = options.dead_letter.map(|dead_letter| Arc::new(dead_letter) as Arc<dyn Middleware>);
        let around: Vec<_> = dead_letter.into_iter().chain(retry_later).collect();
        Self {
            scope_use: match (options.middleware.is_empty(), handler.uses_scope()) {
                (false, _) => ScopeUse::Middleware,
                (true, true) => ScopeUse::Arguments,
                (true, false) => ScopeUse::Nobody,
            },
            may_be_bare: !is_overridden && around.is_empty(),
            handler,
            around,
            chain: options.middleware,
            replies: Replies::new(publisher, options.replies),
            concurrency: options.concurrency.unwrap_or_else(|| subscriber.concurrency()).max(1),
            overrides: Some(overrides).filter(|_| is_overridden && consumer.is_none()),
            consumer,
            receive_spans: instrumentation.is_some_and(|instrumentation| instrumentation.engine.settings.receive_spans),
            redelivers: subscriber.redelivers(),
            stops_if_unpublishable: options.stops_if_unpublishable,
            alarm,
            dropped: Dropped::default(),
            phase,
            runtime: Arc::new(runtime),
        }
    }

    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Starts the receive span, where the user wants one (SPAN-30).
    pub(super) fn receiving(&self) -> Option<Receiving> {
        self.consumer.as_ref().filter(|_| self.receive_spans).map(Consumer::receive)
    }

    /// Handles a message or a batch to its end. Where the broker cannot deliver again, what is to be retried is handled again here. When
    /// the app drops its handlers, what the broker does not deliver again is still brought to its end, without its handler.
    pub(super) async fn dispatch(&self, work: Work) {
        let messages = work.messages();
        let (count, is_lost) = (messages.len(), messages.iter().any(|message| !message.needs_settlement()));
        if messages.iter().any(|message| message.delivery.is_last_attempt()) {
            return self.dispatch_to_end(work).await;
        }
        let mut handling = pin!(self.dispatch_to_end(work));
        // Many handlers never wait; an abort can reach only those that do.
        if poll_fn(|context| Poll::Ready(handling.as_mut().poll(context))).await.is_ready() {
            return;
        }
        if until_aborting(&self.phase, handling).await.is_none() {
            self.dropped.count(count, is_lost);
        }
    }

    async fn dispatch_to_end(&self, work: Work) {
        match work {
            Work::Single(received) => self.dispatch_single(received).await,
            // Boxed, so that single messages do not carry the room for it.
            Work::Batch(received) => Box::pin(self.dispatch_batch(received)).await,
        }
    }

    async fn dispatch_single(&self, mut received: Received) {
        loop {
            if received.is_withdrawn() {
                return;
            }
            let handled = self.attempt(std::slice::from_ref(&received), &received.delivery).await;
            let Some(delay) = self.next_attempt(&mut received, 0, &handled) else {
                return self.end(&mut received, 0, &handled).await;
            };
            // Boxed, as the rare one of the two ways on.
            let Some(again) = Box::pin(self.pause(vec![received], delay)).await.pop() else { return };
            received = again;
        }
    }

    async fn dispatch_batch(&self, mut received: Vec<Received>) {
        loop {
            received.retain(|message| !message.is_withdrawn());
            if received.is_empty() {
                return;
            }
            let messages = received.iter().map(|received| self.equip(received.delivery.clone()));
            let asked = Delivery::batch(messages.collect());
            let handled = self.attempt(&received, &asked).await;
            let mut again = Vec::new();
            let mut longest = Duration::ZERO;
            for (index, mut message) in received.into_iter().enumerate() {
                match self.next_attempt(&mut message, index, &handled) {
                    None => self.end(&mut message, index, &handled).await,
                    Some(delay) => {
                        longest = longest.max(delay);
                        again.push(message);
                    }
                }
            }
            received = if again.is_empty() { again } else { self.pause(again, longest).await };
        }
    }

    /// Handles a message or a batch once. A panic outside of what the chain catches is a failure too.
    async fn attempt(&self, received: &[Received], asked: &Delivery) -> Handled {
        let handling = AssertUnwindSafe(async {
            let delivery = if asked.is_batch() { asked.clone() } else { self.equip(asked.clone()) };
            let handling = Handling { dispatcher: self, received, asked };
            if self.is_bare(received, asked) {
                // What `process` comes to where nothing stands around it: each future less on the way is felt here.
                return Handled::without_span(handling.answer_within(delivery, None).await);
            }
            with_heartbeats(received, pin!(handling.process(delivery))).await
        });
        match handling.catch_unwind().await {
            Ok(handled) => handled,
            Err(panic) => {
                error!(
                    destination = asked.destination(),
                    "telemetry or the framework panicked around a handler; the message follows the failure rule"
                );
                Handled::without_span(decide(panicked(panic.as_ref()), &Attempts::of(asked)))
            }
        }
    }

    /// Tells the broker what becomes of a message that is not handled again here.
    async fn end(&self, message: &mut Received, index: usize, handled: &Handled) {
        let outcome = handled.outcome_of(index);
        if outcome.extension::<Interrupted>().is_some() {
            return report_interrupted(message, self.patience(&[]).group);
        }
        let is_rejected = matches!(handled.outcome.settlement_of(index), Settlement::Reject { .. });
        if self.stops_if_unpublishable && is_rejected && outcome.extension::<Unpublishable>().is_some() {
            return self.alarm.stop(&message.delivery);
        }
        if AssertUnwindSafe(handled.settle(message, index)).catch_unwind().await.is_err() {
            error!(
                destination = message.delivery.destination(),
                "settling a message panicked; the broker was not told"
            );
        }
    }

    /// Waits before messages are handled again here, and returns those that are. One that another member gets is given up at once, so
    /// that nobody waits for it; and when the app ends, those that the broker delivers again.
    async fn pause(&self, mut received: Vec<Received>, delay: Duration) -> Vec<Received> {
        let due = later(delay);
        while !received.is_empty() {
            let patience = self.patience(&received);
            let left = due.saturating_duration_since(Instant::now());
            let waited = with_heartbeats(&received, pin!(patience.wait(left))).await;
            if waited {
                break;
            }
            let is_running = self.phase.borrow().is_running();
            received.retain(|message| !message.is_withdrawn() && (is_running || is_final(message)));
            if self.phase.borrow().is_aborting() {
                received.clear();
            }
        }
        received
    }

    fn patience<'a>(&'a self, received: &'a [Received]) -> Patience<'a> {
        Patience { received, phase: &self.phase, group: self.runtime.source.group.as_deref().unwrap_or_default() }
    }

    fn equip(&self, mut delivery: Delivery) -> Delivery {
        delivery.set_runtime(Arc::clone(&self.runtime));
        delivery
    }

    /// Whether only the chain stands around the handler: no dead letter, no retry elsewhere, no heartbeats, and no telemetry that has anything to do.
    fn is_bare(&self, received: &[Received], asked: &Delivery) -> bool {
        let passes = |consumer: &Consumer| self.chain.is_empty() && consumer.passes_through(asked.headers());
        self.may_be_bare
            && !asked.is_batch()
            && received.iter().all(|message| message.heartbeat().is_none())
            && self.consumer.as_ref().is_none_or(passes)
    }

    /// Counts the next attempt of a message that is to be handled again here, and returns how long to wait before it; `None` where
    /// the message is to be settled.
    fn next_attempt(&self, message: &mut Received, index: usize, handled: &Handled) -> Option<Duration> {
        let Settlement::Retry { after } = handled.outcome.settlement_of(index) else { return None };
        if self.redelivers || handled.outcome_of(index).extension::<Interrupted>().is_some() {
            return None;
        }
        message.delivery.count_attempt();
        if let Some(settler) = &handled.settler {
            settler.consumer.count_settlement("retry");
        }
        Some(after.unwrap_or_default())
    }
}

/// What came of a delivery, and what its settlement is recorded with.
struct Handled {
    outcome: Outcome,
    settler: Option<Settler>,
}

impl Handled {
    /// Without a process span of the framework's own place; where telemetry is ordinary middleware, the outcome brings its own.
    fn without_span(outcome: Outcome) -> Self {
        let settler = outcome.extension::<Settler>().cloned();
        Self { outcome, settler }
    }

    /// What came of one message.
    fn outcome_of(&self, index: usize) -> &Outcome {
        self.outcome.each().get(index).and_then(Option::as_ref).unwrap_or(&self.outcome)
    }

    fn settle<'a>(&'a self, message: &'a mut Received, index: usize) -> impl Future<Output = ()> + Send + 'a {
        settle_one(message, self.outcome_of(index), self.outcome.settlement_of(index), self.settler.as_ref())
    }
}

/// Ends the receive span with what was received.
pub(super) fn record_received(receiving: Receiving, work: &Work) {
    let messages: Vec<_> = work.messages().iter().map(|message| Incoming::from_delivery(&message.delivery)).collect();
    match (work, messages.as_slice()) {
        (Work::Single(_), [message]) => receiving.finish(message),
        (_, messages) => receiving.finish_batch(messages),
    }
}

/// A message or a batch that is being handled, with what stands around its handler.
struct Handling<'a> {
    dispatcher: &'a Dispatcher,
    received: &'a [Received],
    asked: &'a Delivery,
}

impl Handling<'_> {
    async fn process(&self, mut delivery: Delivery) -> Handled {
        if let Some(consumer) = &self.dispatcher.consumer {
            let run = |delivery| self.handle(delivery);
            let (outcome, settler) = process_with(consumer, delivery, self.dispatcher.scope_use, run).await;
            return Handled { outcome, settler: Some(settler) };
        }
        if let Some(overrides) = self.dispatcher.overrides {
            delivery.insert_extension(overrides);
        }
        let outcome = self.handle(delivery).await;
        Handled::without_span(outcome)
    }

    async fn handle(&self, delivery: Delivery) -> Outcome {
        if self.dispatcher.around.is_empty() {
            return self.answer(delivery).await;
        }
        let inner = Answering { handling: self, scope: delivery.made_scope() };
        Next::new(&self.dispatcher.around, &inner).run(delivery).await
    }

    /// Runs middleware and handler, and publishes and confirms what they replied before the message is settled. What the broker does not
    /// deliver again is a failure when the app drops its handlers, so that it gets to its dead letter.
    async fn answer(&self, delivery: Delivery) -> Outcome {
        let scope = delivery.made_scope();
        if !self.asked.is_last_attempt() {
            return self.answer_within(delivery, scope).await;
        }
        let answering = Box::pin(self.answer_within(delivery, scope));
        match until_aborting(&self.dispatcher.phase, answering).await {
            Some(outcome) => outcome,
            None => decide(Outcome::failed(cancelled()), &Attempts::of(self.asked)),
        }
    }

    /// A reply that can never be published fails the delivery like any other error.
    async fn answer_within(&self, delivery: Delivery, scope: Option<Scope>) -> Outcome {
        let outcome = Next::new(&self.dispatcher.chain, self).run(delivery).await;
        if outcome.has_replies() { self.reply(outcome, scope).await } else { outcome }
    }

    fn reply(&self, outcome: Outcome, scope: Option<Scope>) -> BoxFuture<'_, Outcome> {
        let replying = async move {
            let patience = self.dispatcher.patience(self.received);
            self.dispatcher.replies.publish(outcome, self.asked, scope, &patience).await
        };
        Box::pin(
            AssertUnwindSafe(replying).catch_unwind().map(|replied| {
                decide(replied.unwrap_or_else(|panic| panicked(panic.as_ref())), &Attempts::of(self.asked))
            }),
        )
    }
}

impl Endpoint for Handling<'_> {
    fn call(&self, mut delivery: Delivery) -> BoxFuture<'_, Outcome> {
        let handler = &self.dispatcher.handler;
        if !delivery.is_batch() {
            return handler.call(delivery, &());
        }
        let verdicts = Verdicts::default();
        delivery.insert_extension(verdicts.clone());
        let handled = AssertUnwindSafe(handler.call(delivery, &())).catch_unwind();
        // Caught here already: a panic must not take the verdicts on single messages with it.
        Box::pin(
            handled.map(move |handled| {
                handled.unwrap_or_else(|panic| panicked(panic.as_ref())).with_each(verdicts.take())
            }),
        )
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(self.dispatcher.replies.publisher().publish_envelope(envelope))
    }

    fn transport(&self) -> &dyn Publish {
        self.dispatcher.replies.publisher().transport()
    }

    fn wait(&self, delay: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.dispatcher.patience(self.received).wait(delay).await })
    }
}

/// What dead letters and retries elsewhere stand before.
struct Answering<'a> {
    handling: &'a Handling<'a>,
    scope: Option<Scope>,
}

impl Endpoint for Answering<'_> {
    fn call(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        Box::pin(self.handling.answer(delivery))
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
}

/// The failure of a message whose handler was dropped at the end of the app.
fn cancelled() -> Failure {
    let text = "the app ended before the message was handled, and the broker delivers it no more";
    Failure::new("cancelled", text).by_framework()
}

fn report_interrupted(message: &Received, group: &str) {
    let delivery = &message.delivery;
    let (destination, attempt) = (delivery.destination(), delivery.attempt());
    let position = delivery.position().unwrap_or_default();
    if is_final(message) {
        error!(
            destination,
            group,
            attempt,
            position,
            "a message was not published before the app ended, and the broker delivers it no more"
        );
    } else {
        warn!(
            destination,
            group,
            attempt,
            position,
            "a message was not published before it was given up here; the broker delivers it again"
        );
    }
}

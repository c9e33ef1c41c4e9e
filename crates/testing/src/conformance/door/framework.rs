use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use throughline_core::extract::Batch;
use throughline_core::middleware::{Next, Retry, TelemetryMiddleware, Timeout};
use throughline_core::serve::Running;
use throughline_core::telemetry::Instrumentation;
use throughline_core::{
    App, Delivery, Envelope, Handler, IntoOutcome, IntoRoute, Middleware, Outcome, Publisher, RetryPolicy, Route, serve,
};

use super::{Ability, Door, DoorKind, Intake, Job, Message, Work};
use crate::conformance::bench::{chain, started, stopped};
use crate::conformance::wait::PATIENCE;
use crate::conformance::{Harness, Spec};

/// How long a handler may take that never ends.
const LIMIT: Duration = Duration::from_millis(50);

/// The framework: messages are published by a [`Publisher`] and taken by an app that [`serve`](throughline_core::serve()) runs.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::{Door, DoorKind, FrameworkDoor, Harness};
///
/// fn settles_by_itself<H: Harness>() -> bool {
///     <FrameworkDoor<H> as Door<H>>::KIND == DoorKind::Framework
/// }
/// ```
pub struct FrameworkDoor<H: Harness> {
    broker: H::Broker,
    engine: Instrumentation,
    publisher: Publisher,
}

impl<H: Harness> std::fmt::Debug for FrameworkDoor<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameworkDoor").finish_non_exhaustive()
    }
}

#[async_trait]
impl<H: Harness> Door<H> for FrameworkDoor<H> {
    const KIND: DoorKind = DoorKind::Framework;

    fn can(ability: Ability) -> bool {
        !matches!(ability, Ability::Fault | Ability::Pull | Ability::PullBatch)
    }

    async fn open(harness: &H, engine: Instrumentation) -> Self {
        let publisher = Publisher::new(&harness.connect().await).telemetry(&engine);
        Self { broker: harness.connect().await, engine, publisher }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let sent = self.publisher.publish_envelope(envelope(message)).await;
        sent.map(drop).map_err(|error| chain(&error))
    }

    async fn send_batch(&self, messages: Vec<Message>) -> Result<(), String> {
        let destination = messages.first().map(|first| first.destination.clone()).unwrap_or_default();
        let batch = Envelope::batch(destination, messages.into_iter().map(envelope));
        self.publisher.publish_envelope(batch).await.map(drop).map_err(|error| chain(&error))
    }

    async fn request(&self, message: Message) -> Result<Bytes, String> {
        let request = self.publisher.request::<Bytes>(message.destination, message.body).timeout(PATIENCE);
        request.await.map_err(|error| chain(&error))
    }

    async fn take(&self, harness: &H, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let telemetry = TelemetryMiddleware::from(self.engine.clone());
        let app = App::new().subscribe(harness.subscription(spec), route(&job));
        let app = match &job.ambient {
            None => app.telemetry(telemetry),
            Some(ambient) => app.without_telemetry().middleware(Ambient(ambient.clone())).middleware(telemetry),
        };
        Box::new(Served { running: started(serve(self.broker.clone(), app)).await, job })
    }
}

fn envelope(message: Message) -> Envelope {
    let creation = message.supplied;
    let mut envelope = Envelope::new(message.destination, message.body);
    if let Some(id) = message.id {
        envelope = envelope.with_id(id);
    }
    if let Some(id) = message.correlation_id {
        envelope = envelope.with_correlation_id(id);
    }
    match creation {
        Some(context) => envelope.with_creation_context(context),
        None => envelope,
    }
}

/// The handler of a job, with one attempt for each delivery unless the job is about more.
fn route(job: &Job) -> Route {
    let attempts = if job.work == Work::FailTwice { 3 } else { 1 };
    let once = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)).attempts(attempts));
    let route = handler(job.clone()).parent_mode(job.mode);
    let route = match &job.work {
        Work::Bury { to } => route.dead_letter(to),
        Work::Publish { to } => route.reply_to(to),
        Work::Fail | Work::FailTwice | Work::Panic => route.middleware(once),
        Work::Hang => route.middleware(once).middleware(Timeout::new(LIMIT)),
        _ => route,
    };
    if job.batch { route } else { route.concurrency(1) }
}

fn handler(job: Job) -> Route {
    if job.batch {
        let handle = move |batch: Batch<Bytes>| {
            let job = job.clone();
            async move {
                let _ = batch;
                outcome(&job).await
            }
        };
        return IntoRoute::<(Batch<Bytes>,), ()>::into_route(handle);
    }
    let handle = move |delivery: Delivery| {
        let job = job.clone();
        async move {
            let _ = delivery;
            outcome(&job).await
        }
    };
    Handler::<(Delivery,), ()>::concurrency(handle, 1)
}

async fn outcome(job: &Job) -> Outcome {
    let result = job.run().await;
    match (&job.work, job.settlement()) {
        (_, Some(settlement)) => settlement.into_outcome(),
        (Work::Bury { .. }, _) => throughline_core::Settlement::reject("out of stock").into_outcome(),
        (Work::Publish { .. } | Work::Reply, _) => "a reply".into_outcome(),
        _ => result.into_outcome(),
    }
}

/// Makes a context current around everything that follows, telemetry included.
struct Ambient(Context);

#[async_trait]
impl Middleware for Ambient {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        next.run(delivery).with_context(self.0.clone()).await
    }
}

struct Served {
    running: Running,
    job: Job,
}

#[async_trait]
impl Intake for Served {
    async fn finish(self: Box<Self>) {
        self.job.done().await;
        stopped(self.running).await;
    }
}

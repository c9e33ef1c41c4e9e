//! How an app ends: each wait of the engine is over when the phase says so, and one deadline holds for all of it.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{
    Broker, BrokerErrorKind, Observe, Publish, Received, Reception, Subscriber, Subscription,
};
use throughline_core::message::Source;
use throughline_core::serve::{Health, HealthState};
use throughline_core::{App, BrokerError, Delivery, Handler, ServeErrorKind, serve};
use throughline_memory::{Channel, Memory};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::support::Log;

/// How long the whole end may take here.
const LIMIT: Duration = Duration::from_secs(5);
/// That, and what an adapter may add to say why.
const MOST: Duration = Duration::from_millis(5_500);

/// Where the broker waits for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stuck {
    Nowhere,
    Subscribe,
    Close,
    Drain,
    Finish,
    Shutdown,
}

/// A broker that delivers what it is given, once, and gets stuck.
#[derive(Clone)]
struct Slow {
    memory: Memory,
    stuck: Stuck,
    /// How many messages there are; the last ones come at the end only, from [`Subscriber::drain`].
    messages: usize,
    drained: usize,
    given: Arc<AtomicUsize>,
    ends_itself: bool,
    /// Whether what comes at the end is delivered for the last time.
    is_last: bool,
    /// It says that something is wrong, and that it is over when it is let.
    degrades: Option<Arc<Notify>>,
    begun: Arc<Notify>,
}

impl Slow {
    fn new(stuck: Stuck, messages: usize, drained: usize) -> Self {
        let (given, begun) = (Arc::default(), Arc::default());
        Self {
            memory: Memory::new(),
            stuck,
            messages,
            drained,
            given,
            ends_itself: false,
            is_last: false,
            degrades: None,
            begun,
        }
    }
}

#[async_trait]
impl Broker for Slow {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        self.begun.notify_one();
        self.stuck.at(Stuck::Subscribe).await;
        Ok(Box::new(SlowSubscriber { inner, broker: self.clone(), observer: None }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.stuck.at(Stuck::Shutdown).await;
        Ok(())
    }
}

impl Stuck {
    async fn at(self, place: Self) {
        if self == place {
            pending::<()>().await;
        }
    }
}

struct SlowSubscriber {
    inner: Box<dyn Subscriber>,
    broker: Slow,
    observer: Option<Arc<dyn Observe>>,
}

#[async_trait]
impl Subscriber for SlowSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn prepare(&mut self, reception: Reception) {
        let observer = Arc::clone(reception.observer());
        if self.broker.degrades.is_some() {
            observer.degraded(Some("on purpose".into()));
        }
        self.observer = Some(observer);
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        if let (Some(gate), Some(observer)) = (&self.broker.degrades, &self.observer) {
            gate.notified().await;
            gate.notify_one();
            observer.degraded(None);
        }
        if self.broker.given.fetch_add(1, Ordering::SeqCst) < self.broker.messages {
            return Ok(Received::new(Delivery::new("orders", "x")));
        }
        if self.broker.ends_itself {
            return Err(BrokerError::new(BrokerErrorKind::Ended, "ended", "the server said so"));
        }
        pending().await
    }

    async fn close(&mut self, _deadline: Instant) {
        self.broker.stuck.at(Stuck::Close).await;
    }

    async fn drain(&mut self) -> Option<Received> {
        self.broker.stuck.at(Stuck::Drain).await;
        self.broker.drained = self.broker.drained.checked_sub(1)?;
        let drained = Delivery::new("orders", "drained");
        Some(Received::new(if self.broker.is_last { drained.with_last_attempt() } else { drained }))
    }

    async fn finish(&mut self, _deadline: Instant) -> Result<(), BrokerError> {
        self.broker.stuck.at(Stuck::Finish).await;
        Ok(())
    }
}

/// Serves a handler that never ends, and returns how long the end takes once the first message is being handled.
async fn ends_within(broker: Slow, concurrency: usize) -> (Duration, Result<(), ServeErrorKind>) {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let hang = move |_delivery: Delivery| {
        let begun = begun.clone();
        async move {
            let _ = begun.send(());
            pending::<()>().await;
        }
    };
    let handles_any = broker.messages > 0;
    let app = App::new().subscribe(Channel::new("orders"), hang.concurrency(concurrency));
    let running = serve(broker, app).shutdown_timeout(LIMIT).start().await.unwrap();
    if handles_any {
        begins.recv().await.unwrap();
    }
    let started = Instant::now();
    let ended = running.shutdown().await.map_err(|error| error.kind());
    (started.elapsed(), ended)
}

/// Each place at which the engine waits for the adapter, and each number of handlers.
#[tokio::test(start_paused = true)]
async fn no_wait_outlasts_the_shutdown_timeout() {
    for stuck in [Stuck::Nowhere, Stuck::Close, Stuck::Drain, Stuck::Finish, Stuck::Shutdown] {
        for concurrency in [1, 2, 8] {
            // More than there is room for: some wait before their handler begins.
            for (messages, drained) in [(1, 0), (2, 0), (3, 0), (1, 5), (20, 20)] {
                let broker = Slow::new(stuck, messages, drained);
                let (elapsed, ended) = ends_within(broker, concurrency).await;
                let what = format!("{stuck:?}, {concurrency} handlers, {messages} and {drained} messages");
                assert!(elapsed <= MOST, "{what}: {elapsed:?}");
                let is_told = matches!(stuck, Stuck::Finish | Stuck::Shutdown);
                assert_eq!(ended.is_err(), is_told, "{what}: {ended:?}");
            }
        }
    }
}

/// The log says what is true of the broker: this one knows no settlement.
#[tokio::test(start_paused = true)]
async fn messages_that_come_once_only_are_said_to_be_lost() {
    let log = Log::listen();
    let (_, ended) = ends_within(Slow::new(Stuck::Nowhere, 1, 5), 1).await;
    assert_eq!(ended, Ok(()));
    let lost =
        log.with("the app ended before messages were handled; they are lost, as the broker delivers them once only");
    lost[0].has(&["destination=\"orders\"", "messages=6"]);
    assert!(log.with("the app ended before messages were handled; the broker delivers them again").is_empty());
    log.with("a subscription has ended")[0].has(&["handled=0", "left=6"]);
}

/// What probes of an orchestrator see of an app, from before its start to after its end.
#[tokio::test(start_paused = true)]
async fn the_health_of_an_app_follows_it() {
    let states = |health: &Health| health.subscriptions().into_iter().map(|one| one.state).collect::<Vec<_>>();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (let_go, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let opened = Arc::clone(&let_go);
    let wait = move |_delivery: Delivery| {
        begun.send(()).unwrap();
        let opened = Arc::clone(&opened);
        async move { opened.notified().await }
    };
    let broker = Slow { degrades: Some(Arc::clone(&gate)), ..Slow::new(Stuck::Nowhere, 1, 0) };
    let service = serve(broker, App::new().subscribe(Channel::new("orders").group("stock"), wait));
    let health = service.health();
    assert!(!health.is_ready());
    let running = service.start().await.unwrap();
    assert!(health.is_ready());
    assert_eq!(states(&health), [HealthState::Degraded("on purpose".into())]);
    assert_eq!(health.subscriptions()[0].group.as_deref(), Some("stock"));
    gate.notify_one();
    begins.recv().await.unwrap();
    assert_eq!(states(&health), [HealthState::Ready]);

    let ending = tokio::spawn(running.shutdown());
    while states(&health) != [HealthState::Draining] {
        tokio::task::yield_now().await;
    }
    assert!(!health.is_ready());
    let_go.notify_one();
    ending.await.unwrap().unwrap();
    assert_eq!(states(&health), [HealthState::Stopped]);
}

/// A start that waits for a server is given up with the signal.
#[tokio::test(start_paused = true)]
async fn a_signal_is_heard_while_the_app_starts() {
    let broker = Slow::new(Stuck::Subscribe, 0, 0);
    let begun = Arc::clone(&broker.begun);
    let app = App::new().subscribe(Channel::new("orders"), async |_delivery: Delivery| ());
    let started = Instant::now();
    let signal = async move { begun.notified().await };
    serve(broker, app).with_graceful_shutdown(signal).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// A second signal does not wait for anything.
#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once() {
    for stuck in [Stuck::Nowhere, Stuck::Close, Stuck::Shutdown] {
        let (begun, begins) = oneshot::channel();
        let begun = Arc::new(std::sync::Mutex::new(Some(begun)));
        let hang = move |_delivery: Delivery| {
            let begun = begun.lock().unwrap().take();
            async move {
                begun.map(|begun| begun.send(()));
                pending::<()>().await;
            }
        };
        let app = App::new().subscribe(Channel::new("orders"), hang);
        let serving = serve(Slow::new(stuck, 1, 0), app)
            .with_graceful_shutdown(async { begins.await.unwrap() })
            .with_forced_shutdown(ready(()));
        let started = Instant::now();
        let error = serving.await.unwrap_err();
        assert_eq!(error.kind(), ServeErrorKind::Shutdown);
        assert!(started.elapsed() < Duration::from_millis(100), "{stuck:?}: {:?}", started.elapsed());
    }
}

/// A subscription that ends by itself is heard although one of its handlers never does.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_fails_is_heard_while_its_handlers_hang() {
    for concurrency in [2, 8] {
        let broker = Slow { ends_itself: true, ..Slow::new(Stuck::Nowhere, 1, 0) };
        let hang = async |_delivery: Delivery| pending::<()>().await;
        let app = App::new().subscribe(Channel::new("orders"), hang.concurrency(concurrency));
        let started = Instant::now();
        let running = serve(broker, app).shutdown_timeout(LIMIT).start().await.unwrap();
        let error = running.run_until(pending()).await.unwrap_err();
        assert_eq!(error.kind(), ServeErrorKind::Ended);
        assert!(started.elapsed() <= MOST, "{:?}", started.elapsed());
    }
}

/// What the broker delivers no more is not dropped with the handlers, whether it waited or was drained.
#[tokio::test(start_paused = true)]
async fn last_deliveries_that_are_never_handled_become_dead_letters() {
    for concurrency in [1, 4] {
        let broker = Slow { is_last: true, ..Slow::new(Stuck::Nowhere, 1, 6) };
        let mut dead = broker.memory.subscribe(&Channel::new("dead").into()).await.unwrap();
        let hang = async |_delivery: Delivery| pending::<()>().await;
        let app = App::new().subscribe(Channel::new("orders"), hang.concurrency(concurrency).dead_letter("dead"));
        let running = serve(broker, app).shutdown_timeout(LIMIT).start().await.unwrap();
        running.shutdown().await.unwrap();
        for _ in 0..6 {
            assert_eq!(dead.receive().await.unwrap().delivery.payload().as_ref(), b"drained", "{concurrency}");
        }
    }
}

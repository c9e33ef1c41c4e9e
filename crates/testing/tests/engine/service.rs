//! A service of several brokers, and what runs alongside: they start, drain and end together, and nothing that publishes is closed before.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{Broker, BrokerErrorKind, ConnectionState, Publish, Subscriber, Subscription};
use throughline_core::serve::{HealthState, StopSignal};
use throughline_core::{App, BrokerError, Delivery, Handler, ServeErrorKind, serve};
use throughline_memory::{Channel, Memory};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

/// How long the whole end may take here.
const LIMIT: Duration = Duration::from_secs(5);

/// What happened, in its order.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A broker in memory that notes when it is closed, and may refuse its subscriptions or lose its connection.
#[derive(Clone)]
struct Named {
    name: &'static str,
    memory: Memory,
    journal: Journal,
    refuses: bool,
    lost: Arc<Mutex<Option<std::time::Instant>>>,
}

impl Named {
    fn new(name: &'static str, journal: &Journal) -> Self {
        Self { name, memory: Memory::new(), journal: journal.clone(), refuses: false, lost: Arc::default() }
    }
}

#[async_trait]
impl Broker for Named {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    fn connection(&self) -> ConnectionState {
        match *self.lost.lock().unwrap() {
            None => ConnectionState::Connected,
            Some(since) => ConnectionState::Disconnected { since, why: "the cable is out".into() },
        }
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        if self.refuses {
            return Err(BrokerError::new(BrokerErrorKind::Unauthorized, "refused", "on purpose"));
        }
        self.memory.subscribe(subscription).await
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.journal.note(format!("{} is closed", self.name));
        Ok(())
    }
}

/// An app whose handler begins, waits until it is let, and notes that it ends.
fn app(journal: &Journal, name: &'static str, begun: &Arc<Notify>, let_go: &Arc<Notify>) -> App {
    let (journal, begun, let_go) = (journal.clone(), Arc::clone(begun), Arc::clone(let_go));
    let handle = move |_delivery: Delivery| {
        let (journal, begun, let_go) = (journal.clone(), Arc::clone(&begun), Arc::clone(&let_go));
        async move {
            begun.notify_one();
            let_go.notified().await;
            journal.note(format!("a handler of {name} ends"));
        }
    };
    App::new().subscribe(Channel::new("orders"), handle.concurrency(2))
}

fn idle() -> App {
    App::new().subscribe(Channel::new("idle"), async |_delivery: Delivery| ())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// No broker is closed while a handler of another one or something alongside still runs.
#[tokio::test]
async fn brokers_are_closed_after_the_last_handler_and_what_runs_alongside() {
    let journal = Journal::default();
    let (begun, let_go, finish) = (Arc::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
    let (one, two) = (Named::new("one", &journal), Named::new("two", &journal));
    let publisher = one.memory.publisher();
    let (noted, finished) = (journal.clone(), Arc::clone(&finish));
    let service = serve(one.clone(), app(&journal, "one", &begun, &let_go)).and(two, idle()).alongside("http", {
        move |stop: StopSignal| async move {
            assert!(!stop.is_requested());
            stop.requested().await;
            noted.note("http is told");
            finished.notified().await;
            publisher.publish("late", "x").await?;
            noted.note("http ends");
            Ok::<_, throughline_core::PublishError>(())
        }
    });
    let health = service.health();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.with_graceful_shutdown(async { stopped.await.unwrap() }).into_future());
    until("the service is ready", || health.is_ready()).await;
    one.memory.publisher().publish("orders", "42").await.unwrap();
    begun.notified().await;

    stop.send(()).unwrap();
    until("http is told", || !journal.lines().is_empty()).await;
    assert!(!health.is_ready() && health.is_live());
    let_go.notify_one();
    until("the handler ends", || journal.lines().len() == 2).await;
    finish.notify_one();
    running.await.unwrap().unwrap();
    let lines = journal.lines();
    assert_eq!(lines[..3], ["http is told", "a handler of one ends", "http ends"]);
    let mut closed = lines[3..].to_vec();
    closed.sort_unstable();
    assert_eq!(closed, ["one is closed", "two is closed"]);
    assert!(health.is_live(), "it was asked to end");
}

/// When the subscription of one broker ends by itself, handlers of the other finish, and the error says which one it was.
#[tokio::test]
async fn when_one_broker_ends_the_others_drain() {
    let journal = Journal::default();
    let (begun, let_go) = (Arc::default(), Arc::<Notify>::default());
    let (one, two) = (Named::new("one", &journal), Named::new("two", &journal));
    let service = serve(one.clone(), app(&journal, "one", &begun, &let_go)).and(two.clone(), idle());
    let health = service.health();
    let running = tokio::spawn(service.start().await.unwrap().run_until(pending()));
    one.memory.publisher().publish("orders", "42").await.unwrap();
    begun.notified().await;

    two.memory.stop();
    until("the failure is seen", || !health.is_live()).await;
    assert!(journal.lines().is_empty(), "the handler of the other one still runs");
    let_go.notify_one();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Ended);
    assert!(error.to_string().contains("idle"), "{error}");
    assert_eq!(journal.lines().len(), 3);
    assert_eq!(journal.lines()[0], "a handler of one ends");
    assert!(!health.is_live() && !health.is_ready());
    assert!(health.to_string().contains("failed: the subscription to `idle` ended: "), "{health}");
}

/// A subscription that ends while its own handler hangs makes the service not live at once, not when it is done.
#[tokio::test]
async fn a_subscription_that_ends_is_not_live_while_its_handlers_run() {
    let journal = Journal::default();
    let (begun, let_go) = (Arc::default(), Arc::<Notify>::default());
    let one = Named::new("one", &journal);
    let service = serve(one.clone(), app(&journal, "one", &begun, &let_go));
    let health = service.health();
    let memory = one.memory.clone();
    let running = tokio::spawn(service.start().await.unwrap().run_until(pending()));
    memory.publisher().publish("orders", "42").await.unwrap();
    begun.notified().await;
    memory.stop();
    until("the failure is seen while a handler runs", || !health.is_live()).await;
    assert!(journal.lines().is_empty() && !running.is_finished());
    let_go.notify_one();
    running.await.unwrap().unwrap_err();
    assert!(!health.is_live());
    assert!(health.to_string().contains("failed: the subscription to `orders` ended: "), "{health}");
}

/// A broker that does not start takes the others along; what runs alongside is told and waited for, and can publish until it ends.
#[tokio::test]
async fn when_one_broker_does_not_start_nothing_runs() {
    let journal = Journal::default();
    let one = Named::new("one", &journal);
    let two = Named { refuses: true, ..Named::new("two", &journal) };
    let noted = journal.clone();
    let handled = journal.clone();
    let handle = move |_delivery: Delivery| {
        let handled = handled.clone();
        async move { handled.note("a message is handled") }
    };
    one.memory.deliver(Delivery::new("orders", "42"));
    let service = serve(one, App::new().subscribe(Channel::new("orders"), handle)).and(two, idle());
    let health = service.health();
    let error = service
        .alongside("http", |stop| async move {
            stop.requested().await;
            noted.note("http ends");
            Ok::<_, Infallible>(())
        })
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Subscribe);
    assert_eq!(journal.lines()[0], "http ends");
    assert_eq!(journal.lines().len(), 3, "and both brokers are closed");
    assert!(!health.is_live() && !health.is_ready());
    assert_eq!(health.subscriptions()[0].state, HealthState::Stopped);
}

/// The error, the panic or the end of what runs alongside ends the app.
#[tokio::test]
async fn what_ends_alongside_ends_the_app() {
    for (how, kind) in
        [("error", Some(ServeErrorKind::Alongside)), ("panic", Some(ServeErrorKind::Alongside)), ("end", None)]
    {
        let journal = Journal::default();
        let go = Arc::<Notify>::default();
        let (gone, one) = (Arc::clone(&go), Named::new("one", &journal));
        let service = serve(one, idle()).alongside("http", move |_| async move {
            gone.notified().await;
            assert_ne!(how, "panic", "on purpose");
            if how == "error" { Err(std::io::Error::other("the port is gone")) } else { Ok(()) }
        });
        let running = tokio::spawn(service.start().await.unwrap().run_until(pending()));
        assert!(journal.lines().is_empty());
        go.notify_one();
        let ended = running.await.unwrap();
        assert_eq!(ended.as_ref().err().map(throughline_core::ServeError::kind), kind, "{how}");
        if let Err(error) = ended {
            assert!(error.to_string().contains("`http`"), "{error}");
            let cause = error.cause().expect("its own error").to_string();
            assert!(cause.contains(if how == "error" { "the port is gone" } else { "on purpose" }), "{cause}");
        }
        assert_eq!(journal.lines(), ["one is closed"]);
    }
}

/// What does not end in time is dropped with the handlers, and said; the brokers are closed all the same.
#[tokio::test(start_paused = true)]
async fn what_runs_on_alongside_is_dropped_at_the_deadline_of_the_handlers() {
    struct Dropped(Journal);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.note("http is dropped");
        }
    }
    let journal = Journal::default();
    let dropped = Dropped(journal.clone());
    let service = serve(Named::new("one", &journal), idle()).alongside("http", move |_| async move {
        let _dropped = dropped;
        pending::<Result<(), Infallible>>().await
    });
    let running = service.shutdown_timeout(LIMIT).start().await.unwrap();
    let started = Instant::now();
    let error = running.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Shutdown);
    assert!(started.elapsed() <= LIMIT, "{:?}", started.elapsed());
    assert!(started.elapsed() < LIMIT * 9 / 10, "nothing waits for what was dropped: {:?}", started.elapsed());
    assert_eq!(journal.lines(), ["http is dropped", "one is closed"]);
}

/// A signal during the start reaches what runs alongside too, and is waited for.
#[tokio::test]
async fn a_signal_during_the_start_ends_what_runs_alongside() {
    struct Never(Named);
    #[async_trait]
    impl Broker for Never {
        fn transport(&self) -> Arc<dyn Publish> {
            self.0.transport()
        }

        async fn subscribe(&self, _subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
            pending().await
        }

        async fn shutdown(&self, deadline: Instant) -> Result<(), BrokerError> {
            self.0.shutdown(deadline).await
        }
    }
    let journal = Journal::default();
    let (noted, begun) = (journal.clone(), Arc::<Notify>::default());
    let begins = Arc::clone(&begun);
    serve(Never(Named::new("one", &journal)), idle())
        .alongside("http", move |stop| async move {
            begins.notify_one();
            stop.requested().await;
            noted.note("http ends");
            Ok::<_, Infallible>(())
        })
        .with_graceful_shutdown(async move { begun.notified().await })
        .await
        .unwrap();
    assert_eq!(journal.lines(), ["http ends", "one is closed"]);
}

/// A lost connection makes a service not ready, and is no reason to start it again.
#[tokio::test]
async fn a_lost_connection_is_not_ready_and_live() {
    let journal = Journal::default();
    let (one, two) = (Named::new("one", &journal), Named::new("two", &journal));
    let lost = Arc::clone(&two.lost);
    let service = serve(one, idle()).and(two, idle());
    let health = service.health();
    assert!(health.is_live() && !health.is_ready(), "before the start");
    let running = service.start().await.unwrap();
    assert!(health.is_live() && health.is_ready());
    assert_eq!(health.connections().len(), 2);

    *lost.lock().unwrap() = Some(std::time::Instant::now());
    assert!(health.is_live() && !health.is_ready());
    let text = health.to_string();
    assert!(text.starts_with("ready: no\nlive: yes\nconnection in_memory: connected\n"), "{text}");
    assert!(text.contains("disconnected for 0 s: the cable is out"), "{text}");
    *lost.lock().unwrap() = None;
    assert!(health.is_ready());

    running.shutdown().await.unwrap();
    assert!(health.connections().iter().all(|one| one.state == ConnectionState::Closed));
    assert!(health.is_live() && !health.is_ready());
}

/// When a message came last is known, without a lock for each.
#[tokio::test]
async fn a_subscription_shows_when_its_last_message_came() {
    let memory = Memory::new();
    let service = serve(memory.clone(), App::new().subscribe(Channel::new("orders"), async |_body: String| ()));
    let health = service.health();
    let running = service.start().await.unwrap();
    assert_eq!(health.subscriptions()[0].last_received, None);
    let before = std::time::Instant::now();
    memory.publisher().publish("orders", "42").await.unwrap();
    memory.idle().await;
    let received = health.subscriptions()[0].last_received.unwrap();
    // To the microsecond.
    assert!(received + Duration::from_micros(1) >= before && received <= std::time::Instant::now());
    assert!(health.to_string().contains("subscription orders: ready; received 0 s ago"), "{health}");
    running.shutdown().await.unwrap();
}

//! Brokers that keep an order by parts of a destination, and hear of settlements later and of many at once: lanes, withdrawn messages,
//! deferred settlements.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::{
    BoxFuture, Broker, BrokerErrorKind, Observe, Pattern, Publish, Received, Reception, Settle, Subscriber,
    Subscription, done,
};
use throughline_core::message::{Operations, Source, System};
use throughline_core::serve::{Running, StopSignal};
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, BrokerError, Delivery, Handler, Settlement, serve};
use throughline_memory::Memory;
use throughline_testing::{Capture, attribute};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::support::points;

/// A broker whose messages have lanes. It hears of settlements at the end.
#[derive(Clone)]
struct Laned {
    log: Arc<Log>,
    messages: Arc<Mutex<Option<mpsc::UnboundedReceiver<Received>>>>,
    hands_out: mpsc::UnboundedSender<Received>,
    memory: Memory,
    /// What is done when the message with this tag is on its way to the app.
    while_coming: Option<(u64, Arc<dyn Fn() + Send + Sync>)>,
}

/// What the broker was told.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    /// The tags from here on are another member's.
    withdrawn_from: Mutex<Option<u64>>,
    observer: Mutex<Option<Arc<dyn Observe>>>,
}

impl Log {
    fn add(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn with(&self, start: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let mut found: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(start).map(str::to_owned)).collect();
        found.sort();
        found
    }
}

impl Settle for Log {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        _settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.add(format!("settled {}", message.tag));
        done()
    }

    fn is_deferred(&self, _message: &Received) -> bool {
        true
    }

    fn is_withdrawn(&self, message: &Received) -> bool {
        self.withdrawn_from.lock().unwrap().is_some_and(|from| message.tag >= from)
    }

    fn abandon(&self, message: &Received) {
        self.add(format!("given up {}", message.tag));
    }
}

impl Laned {
    fn new() -> Self {
        let (hands_out, messages) = mpsc::unbounded_channel();
        let messages = Arc::new(Mutex::new(Some(messages)));
        Self { log: Arc::default(), messages, hands_out, memory: Memory::new(), while_coming: None }
    }

    /// Hands out messages with these tags, in the lane of their tens.
    fn hand_out(&self, tags: impl IntoIterator<Item = u64>) {
        for tag in tags {
            let received = Received::new(Delivery::new("orders", tag.to_string()));
            let lane = u32::try_from(tag / 10).unwrap();
            let settle = Arc::clone(&self.log) as Arc<dyn Settle>;
            assert!(self.hands_out.send(received.with_settle(settle, tag).with_lane(lane)).is_ok());
        }
    }
}

#[async_trait]
impl Broker for Laned {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, _subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let messages = self.messages.lock().unwrap().take().expect("one subscription");
        let while_coming = self.while_coming.clone();
        Ok(Box::new(LanedSubscriber { log: Arc::clone(&self.log), messages, while_coming }))
    }

    async fn shutdown(&self, _deadline: tokio::time::Instant) -> Result<(), BrokerError> {
        Ok(())
    }
}

struct LanedSubscriber {
    log: Arc<Log>,
    messages: mpsc::UnboundedReceiver<Received>,
    while_coming: Option<(u64, Arc<dyn Fn() + Send + Sync>)>,
}

#[async_trait]
impl Subscriber for LanedSubscriber {
    fn source(&self) -> Arc<Source> {
        let operations = Operations::DEFAULT.with_ack("commit");
        Arc::new(Source::new(Arc::new(System::new("laned", operations))).with_destination("orders"))
    }

    fn concurrency(&self) -> usize {
        usize::MAX
    }

    fn prepare(&mut self, reception: Reception) {
        *self.log.observer.lock().unwrap() = Some(Arc::clone(reception.observer()));
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let Some(received) = self.messages.recv().await else { return std::future::pending().await };
        if let Some((_, act)) = self.while_coming.as_ref().filter(|(tag, _)| *tag == received.tag) {
            act();
        }
        Ok(received)
    }

    async fn close(&mut self, _deadline: tokio::time::Instant) {
        self.log.add("closed".to_owned());
    }

    async fn finish(&mut self, _deadline: tokio::time::Instant) -> Result<(), BrokerError> {
        self.log.add("finished".to_owned());
        Ok(())
    }
}

/// Handlers that begin, wait until they are let go, and end.
#[derive(Clone)]
struct Gate {
    begun: Arc<watch::Sender<Vec<u64>>>,
    ended: Arc<watch::Sender<Vec<u64>>>,
    gates: Arc<Mutex<BTreeMap<u64, Arc<Semaphore>>>>,
}

impl Gate {
    fn new() -> Self {
        Self { begun: Arc::default(), ended: Arc::default(), gates: Arc::default() }
    }

    fn of(&self, tag: u64) -> Arc<Semaphore> {
        Arc::clone(self.gates.lock().unwrap().entry(tag).or_insert_with(|| Arc::new(Semaphore::new(0))))
    }

    fn open(&self, tags: impl IntoIterator<Item = u64>) {
        for tag in tags {
            self.of(tag).add_permits(1);
        }
    }

    async fn handle(self, delivery: Delivery) {
        let tag = std::str::from_utf8(delivery.payload()).unwrap().parse().unwrap();
        self.begun.send_modify(|begun| begun.push(tag));
        self.of(tag).acquire().await.unwrap().forget();
        self.ended.send_modify(|ended| ended.push(tag));
    }

    /// Waits until so many have begun, and returns which, sorted.
    async fn begun(&self, count: usize) -> Vec<u64> {
        sorted(&self.begun, count).await
    }

    async fn ended(&self, count: usize) -> Vec<u64> {
        sorted(&self.ended, count).await
    }

    async fn start(&self, broker: &Laned, most: Option<usize>, capture: &Capture) -> Running {
        let gate = self.clone();
        let handle = move |delivery: Delivery| gate.clone().handle(delivery);
        let subscription = Subscription::new("laned", Pattern::exact("orders"));
        let app = match most {
            Some(most) => App::new().subscribe(subscription, Handler::<(Delivery,), ()>::concurrency(handle, most)),
            None => App::new().subscribe(subscription, handle),
        };
        let telemetry = capture.instrumentation().settle_spans(SettleSpans::Always).build();
        serve(broker.clone(), app.telemetry(telemetry)).start().await.unwrap()
    }
}

async fn sorted(tags: &watch::Sender<Vec<u64>>, count: usize) -> Vec<u64> {
    let mut changes = tags.subscribe();
    let waiting = changes.wait_for(|tags| tags.len() >= count);
    let mut tags = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time").unwrap().clone();
    tags.sort_unstable();
    tags
}

/// Messages of one lane follow each other in their order; a lane that waits holds up no other one.
#[tokio::test(start_paused = true)]
async fn a_lane_is_one_message_after_the_other() {
    let (broker, gate, capture) = (Laned::new(), Gate::new(), Capture::new());
    let running = gate.start(&broker, None, &capture).await;
    broker.hand_out([10, 11, 12, 20, 21, 30]);
    assert_eq!(gate.begun(3).await, [10, 20, 30], "one of each lane");
    gate.open([20, 21]);
    assert_eq!(gate.ended(2).await, [20, 21], "the second lane goes on while the first one waits");
    gate.open([12, 11, 10, 30]);
    gate.ended(6).await;
    let order: Vec<u64> = gate.ended.borrow().iter().copied().filter(|tag| tag / 10 == 1).collect();
    assert_eq!(order, [10, 11, 12]);
    running.shutdown().await.unwrap();
    assert_eq!(broker.log.with("settled "), ["10", "11", "12", "20", "21", "30"]);
}

#[tokio::test(start_paused = true)]
async fn the_concurrency_of_a_route_bounds_its_lanes() {
    let (broker, gate, capture) = (Laned::new(), Gate::new(), Capture::new());
    let running = gate.start(&broker, Some(2), &capture).await;
    broker.hand_out([10, 20, 30, 40, 11]);
    assert_eq!(gate.begun(2).await, [10, 20]);
    // The clock is paused: it moves only when no task has anything left to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.begun.borrow().len(), 2, "no third one begins");
    gate.open([10]);
    gate.begun(3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.begun.borrow().len(), 3);
    gate.open([11, 20, 30, 40]);
    assert_eq!(gate.ended(5).await, [10, 11, 20, 30, 40]);
    running.shutdown().await.unwrap();
}

/// What another member gets is given up and not handled; what is being handled is finished.
#[tokio::test(start_paused = true)]
async fn a_withdrawn_message_is_not_begun_with() {
    let (broker, gate, capture) = (Laned::new(), Gate::new(), Capture::new());
    let running = gate.start(&broker, None, &capture).await;
    broker.hand_out([10, 11, 12]);
    gate.begun(1).await;
    *broker.log.withdrawn_from.lock().unwrap() = Some(10);
    gate.open([10]);
    gate.ended(1).await;
    running.shutdown().await.unwrap();
    assert_eq!(*gate.begun.borrow(), [10]);
    assert_eq!(broker.log.with("settled "), ["10"]);
    assert_eq!(broker.log.with("given up "), ["11", "12"]);
    assert_eq!(capture.tree().find_all("process orders").len(), 1, "what is not handled has no span");
}

/// A shutdown gives up what waits in a lane, lets handlers finish, and ends the subscription last.
#[tokio::test(start_paused = true)]
async fn a_shutdown_gives_up_what_waits_and_finishes_last() {
    let (broker, gate, capture) = (Laned::new(), Gate::new(), Capture::new());
    let running = gate.start(&broker, None, &capture).await;
    broker.hand_out([10, 11, 20, 21]);
    gate.begun(2).await;
    let stopping = tokio::spawn(running.shutdown());
    let log = Arc::clone(&broker.log);
    while log.with("closed").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.with("given up "), ["11", "21"]);
    gate.open([10, 20]);
    stopping.await.unwrap().unwrap();
    assert_eq!((log.with("settled "), gate.begun.borrow().len()), (vec!["10".into(), "20".into()], 2));
    assert_eq!(log.lines.lock().unwrap().last().map(String::as_str), Some("finished"));
}

/// A message that is on its way when the app begins to end does not overtake those that wait in its lane.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_message_that_comes_with_the_end_overtakes_nothing() {
    let (mut broker, gate) = (Laned::new(), Gate::new());
    let (stop, stopped) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let end = {
        let (stop, stopped) = (Arc::clone(&stop), Arc::clone(&stopped));
        move || {
            stop.notify_one();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !stopped.load(Ordering::Acquire) {
                assert!(Instant::now() < deadline, "the app begins to end");
                std::thread::yield_now();
            }
        }
    };
    broker.while_coming = Some((12, Arc::new(end)));
    let handle = {
        let gate = gate.clone();
        move |delivery: Delivery| gate.clone().handle(delivery)
    };
    let app = App::new().subscribe(Subscription::new("laned", Pattern::exact("orders")), handle);
    let witness = move |signal: StopSignal| async move {
        signal.requested().await;
        stopped.store(true, Ordering::Release);
        std::io::Result::Ok(())
    };
    let running = serve(broker.clone(), app.without_telemetry()).alongside("witness", witness).start().await.unwrap();
    broker.hand_out([10, 11]);
    gate.begun(1).await;
    gate.open([11, 12]);
    broker.hand_out([12]);
    let stopping = tokio::spawn(running.run_until(async move { stop.notified().await }));
    let closed = async {
        while broker.log.with("closed").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the subscription is closed");
    gate.open([10]);
    stopping.await.unwrap().unwrap();
    assert_eq!(*gate.begun.borrow(), [10]);
    assert_eq!(broker.log.with("settled "), ["10"]);
    assert_eq!(broker.log.with("given up "), ["11", "12"]);
}

/// SPAN-33: a settlement that is only noted is no operation; what the adapter reports later is one.
#[tokio::test(start_paused = true)]
async fn a_deferred_settlement_is_an_operation_when_the_broker_hears_of_it() {
    let (broker, gate, capture) = (Laned::new(), Gate::new(), Capture::new());
    let running = gate.start(&broker, None, &capture).await;
    broker.hand_out([10, 11, 20]);
    gate.open([10, 11, 20]);
    gate.ended(3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let durations = || {
        let with = [("messaging.operation.name", "commit")];
        let points = points(&capture, "messaging.client.operation.duration", &with);
        points.iter().map(|point| point.count).sum::<u64>()
    };
    assert_eq!(broker.log.with("settled ").len(), 3);
    assert_eq!((capture.tree().find_all("commit orders").len(), durations()), (0, 0));

    let observer = broker.log.observer.lock().unwrap().clone().expect("it is told before the first message");
    let up_to = vec![KeyValue::new("messaging.kafka.offset", 2)];
    observer.settled(Instant::now(), Some("orders"), up_to, None);
    let failed = BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer");
    observer.settled(Instant::now(), None, Vec::new(), Some(&failed));
    let tree = capture.tree();
    let (commit, lost) = (tree.find("commit orders"), tree.find("commit"));
    assert_eq!(attribute(commit, "messaging.kafka.offset"), Some(&2.into()));
    assert!(tree.parent(commit).is_none(), "it belongs to no one message");
    assert_eq!(attribute(lost, "error.type"), Some(&"timeout".into()));
    assert_eq!(attribute(lost, "messaging.destination.name"), None, "of several destinations");
    assert_eq!(durations(), 2, "METR-01");
    running.shutdown().await.unwrap();
}

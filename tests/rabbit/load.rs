//! Load on a queue, and an account of every message of it: by number, in the order in which they were handled.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_core::broker::Broker;
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, Envelope, serve};
use throughline_rabbit::{PublishFailure, Queue, Rabbit, RabbitOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::server::unique;

/// How long everything may take, with a server that goes away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How many messages a consumer has at most that are not settled.
pub(crate) const PREFETCH: u16 = 16;

/// How many messages go through a queue at least.
pub(crate) const MESSAGES: u64 = 10_000;

/// How many are published at a time, and how far the publisher may be ahead of those that consume: it is to be at work when something
/// happens.
pub(crate) const AT_A_TIME: u64 = 250;
const AHEAD: u64 = 2_000;

/// A message that was handled: by whom, which one it is and how often it was delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) consumer: u32,
    pub(crate) number: u64,
    pub(crate) attempt: u32,
}

impl Entry {
    pub(crate) fn new(consumer: u32, delivery: &Delivery) -> Self {
        let text = std::str::from_utf8(delivery.payload()).expect("a number");
        Self { consumer, number: text.parse().expect("a number"), attempt: delivery.attempt() }
    }
}

/// All that was handled, in its order.
#[derive(Clone)]
pub(crate) struct Account {
    entries: Arc<Mutex<Vec<Entry>>>,
    counts: Arc<Mutex<HashMap<u64, u32>>>,
    distinct: Arc<watch::Sender<usize>>,
    /// How many were taken away from those that consume.
    taken_away: Arc<AtomicU64>,
    /// Handlers wait where so many are handled.
    most: Arc<watch::Sender<u64>>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sum {
    pub(crate) lost: usize,
    /// How often one was handled that had been handled before.
    pub(crate) again: usize,
    /// How often of these it was no redelivery: there was a second message.
    pub(crate) twice: usize,
}

impl Account {
    pub(crate) fn new() -> Self {
        let (distinct, most) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(u64::MAX)));
        Self { entries: Arc::default(), counts: Arc::default(), distinct, taken_away: Arc::default(), most }
    }

    /// Lets handlers wait from so many on, until it is said anew: what takes its time then happens in the middle of the work.
    pub(crate) fn hold_at(&self, most: u64) {
        self.most.send_replace(most);
    }

    async fn room(&self) {
        let mut most = self.most.subscribe();
        // Its sender is here.
        let _ = most.wait_for(|most| (self.distinct() as u64) < *most).await;
    }

    pub(crate) fn add(&self, entry: Entry) {
        self.entries.lock().expect("no handler panicked").push(entry);
        let mut counts = self.counts.lock().expect("no handler panicked");
        *counts.entry(entry.number).or_default() += 1;
        self.distinct.send_replace(counts.len());
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("no handler panicked").clone()
    }

    /// How many different messages were handled.
    pub(crate) fn distinct(&self) -> usize {
        *self.distinct.borrow()
    }

    /// How many of the messages need not be waited for any more.
    fn done(&self) -> u64 {
        self.distinct() as u64 + self.taken_away.load(Ordering::Relaxed)
    }

    /// Notes that so many messages will not come.
    pub(crate) fn take_away(&self, count: usize) {
        self.taken_away.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Waits until so many different messages are handled.
    pub(crate) async fn reach(&self, count: u64) {
        let mut distinct = self.distinct.subscribe();
        let reached = timeout(PATIENCE, distinct.wait_for(|distinct| *distinct as u64 >= count)).await.is_ok();
        assert!(reached, "{} of {count} messages were handled within {PATIENCE:?}", self.distinct());
    }

    /// Waits until a consumer has handled so many.
    pub(crate) async fn reach_by(&self, consumer: u32, count: usize) {
        let handled = || self.entries().iter().filter(|entry| entry.consumer == consumer).count();
        until(&format!("consumer {consumer} handles {count} messages"), || handled() >= count).await;
    }

    /// The numbers up to `published` that nobody handled.
    pub(crate) fn missing(&self, published: u64) -> Vec<u64> {
        let counts = self.counts.lock().expect("no handler panicked");
        (0..published).filter(|number| !counts.contains_key(number)).collect()
    }

    /// Counts, and prints it for the record.
    pub(crate) fn sum(&self, what: &str, sent: Sent) -> Sum {
        let (entries, lost) = (self.entries(), self.missing(sent.published).len());
        let (handled, distinct) = (entries.len(), self.distinct());
        let firsts = entries.iter().filter(|entry| entry.attempt == 1);
        let mut seen = HashSet::new();
        let twice = firsts.filter(|entry| !seen.insert(entry.number)).count();
        let sum = Sum { lost, again: handled - distinct, twice };
        eprintln!("FAULT {what}: {sent}; handled {handled}, lost {lost}, again {}, of these twice {twice}", sum.again);
        sum
    }

    /// A message is begun only when all before it were handled: an order that steps back is one of messages that come again, and one that
    /// skips forward is a lost message.
    #[track_caller]
    pub(crate) fn assert_ordered(&self) {
        let mut next = 0;
        for entry in self.entries() {
            assert!(entry.number <= next, "{entry:?} came when {next} was the next");
            next = next.max(entry.number + 1);
        }
    }
}

/// What was published, and what the publisher was told of messages that it published once more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sent {
    pub(crate) published: u64,
    /// They were not sent.
    pub(crate) not_sent: usize,
    /// They came back: there was no queue.
    pub(crate) returned: usize,
    /// A queue did not take them.
    pub(crate) nacked: usize,
    /// They may have been stored.
    pub(crate) maybe: usize,
}

impl Sent {
    /// All at the first attempt.
    pub(crate) fn all(published: u64) -> Self {
        Self { published, ..Self::default() }
    }

    /// How many were published once more.
    pub(crate) fn again(&self) -> usize {
        self.not_sent + self.returned + self.nacked + self.maybe
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { published, not_sent, returned, nacked, maybe } = self;
        write!(f, "published {published} (again: {not_sent} not sent, ")?;
        write!(f, "{returned} returned, {nacked} nacked, {maybe} maybe stored)")
    }
}

/// One who publishes at present.
pub(crate) struct Publishing {
    task: JoinHandle<Sent>,
    is_enough: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
}

impl Publishing {
    /// The first number whose publish has not begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Lets it end, with [`MESSAGES`] at least.
    pub(crate) async fn end(self) -> Sent {
        self.is_enough.store(true, Ordering::SeqCst);
        timeout(PATIENCE, self.task).await.expect("all is published in time").expect("no panic")
    }
}

/// A queue, what goes through it, and who handles that.
pub(crate) struct Load {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) account: Account,
    /// How long the publisher waits for a confirmation.
    pub(crate) confirmed_within: Duration,
    queue: Queue,
}

impl Load {
    pub(crate) fn new(url: &str, make: impl FnOnce(Queue) -> Queue) -> Self {
        let name = unique("load");
        let queue = make(Queue::new(name.as_str()).prefetch(PREFETCH));
        Self { url: url.to_owned(), name, account: Account::new(), confirmed_within: PATIENCE, queue }
    }

    pub(crate) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Starts a consumer with a connection of its own.
    pub(crate) async fn consumer(&self, number: u32) -> Running {
        self.consumer_at(&self.url, number).await
    }

    pub(crate) async fn consumer_at(&self, url: &str, number: u32) -> Running {
        let account = self.account.clone();
        let handle = move |delivery: Delivery| {
            let account = account.clone();
            async move {
                account.room().await;
                account.add(Entry::new(number, &delivery));
                work().await;
            }
        };
        start(url, App::new().subscribe(self.queue(), handle)).await
    }

    /// Makes the queue, with all messages in it.
    pub(crate) async fn fill(&self) {
        self.consumer(0).await.shutdown().await.expect("the queue is made");
        let numbers: Vec<u64> = (0..MESSAGES).collect();
        publish_all(&self.url, &self.name, &numbers).await;
    }

    /// Publishes numbers in their order until it is enough, as a service does that must lose none: what is not confirmed is published once
    /// more. It keeps a little ahead of those who consume.
    pub(crate) fn publish(&self) -> Publishing {
        self.publish_at(&self.url)
    }

    pub(crate) fn publish_at(&self, url: &str) -> Publishing {
        let (url, name, account) = (url.to_owned(), self.name.clone(), self.account.clone());
        let options = options().confirm_timeout(self.confirmed_within);
        let (is_enough, begun): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let (enough, next) = (Arc::clone(&is_enough), Arc::clone(&begun));
        let task = tokio::spawn(async move {
            let rabbit = Rabbit::connect_with(&*url, options).await.expect("a connection to RabbitMQ");
            let mut sent = Sent::default();
            while sent.published < MESSAGES || !enough.load(Ordering::SeqCst) {
                let least = sent.published.saturating_sub(AHEAD);
                until("those that consume keep up", || account.done() >= least).await;
                let mut some: Vec<u64> = (sent.published..sent.published + AT_A_TIME).collect();
                next.store(sent.published + AT_A_TIME, Ordering::SeqCst);
                let deadline = Instant::now() + PATIENCE;
                while !some.is_empty() {
                    some = publish_some(&rabbit, &name, &some, &mut sent).await;
                    assert!(some.is_empty() || Instant::now() < deadline, "{some:?} were not taken: {sent}");
                    // A pause between attempts, as a service makes one.
                    sleep(Duration::from_millis(if some.is_empty() { 0 } else { 20 })).await;
                }
                sent.published += AT_A_TIME;
            }
            rabbit.close().await.expect("the publisher ends");
            sent
        });
        Publishing { task, is_enough, begun }
    }
}

/// Publishes numbers, and returns those that are not confirmed.
async fn publish_some(rabbit: &Rabbit, queue: &str, numbers: &[u64], sent: &mut Sent) -> Vec<u64> {
    let messages = numbers.iter().map(|number| Envelope::new(queue.to_owned(), number.to_string())).collect();
    let results = rabbit.transport().publish_batch(messages).await;
    let mut failed = Vec::new();
    for (number, result) in numbers.iter().zip(results) {
        let Err(error) = result else { continue };
        match PublishFailure::of(&error) {
            Some(PublishFailure::NotSent) => sent.not_sent += 1,
            Some(PublishFailure::Refused) if error.error_type() == "nack" => sent.nacked += 1,
            Some(PublishFailure::Refused) => sent.returned += 1,
            Some(PublishFailure::MaybeStored) => sent.maybe += 1,
            _ => panic!("{error}"),
        }
        failed.push(*number);
    }
    failed
}

/// Publishes numbers in their order, where nothing fails.
pub(crate) async fn publish_all(url: &str, queue: &str, numbers: &[u64]) {
    let (rabbit, mut sent) = (connect(url).await, Sent::default());
    for some in numbers.chunks(AT_A_TIME as usize) {
        let failed = publish_some(&rabbit, queue, some, &mut sent).await;
        assert!(failed.is_empty(), "{sent}");
    }
    rabbit.close().await.expect("the publisher ends");
}

/// A little work, so that what happens, happens in the middle of it.
pub(crate) async fn work() {
    sleep(Duration::from_micros(300)).await;
}

/// Publishes wait for as long as a server in trouble takes, and its tool: `rabbitmqctl` alone may need ten seconds.
fn options() -> RabbitOptions {
    RabbitOptions::new().name("load").publish_wait(PATIENCE).confirm_timeout(PATIENCE)
}

pub(crate) async fn connect(url: &str) -> Rabbit {
    Rabbit::connect_with(url, options()).await.expect("a connection to RabbitMQ")
}

/// Starts an app on a connection of its own.
pub(crate) async fn start(url: &str, app: App) -> Running {
    serve(connect(url).await, app.without_telemetry()).start().await.expect("the app starts")
}

/// Waits for a condition that changes by itself.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

//! Stands for a client of somebody else: a broker called pigeon post that lives in the process. Nothing in here knows Throughline.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// The largest body, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// A message on its way.
#[derive(Clone, Default)]
pub struct Message {
    /// Where it goes: words with dots between them.
    pub subject: String,
    /// A name may stand here several times.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub payload: Bytes,
    /// Where the answer goes.
    pub reply: Option<String>,
    /// The place that the server gave it.
    pub number: u64,
    /// How often it came back before.
    pub returned: u32,
    /// Of a message that was received: where it came from.
    queue: Option<Arc<Queue>>,
}

impl Message {
    /// Makes a message that is to be published.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), payload: payload.into(), ..Self::default() }
    }

    /// Tells the server that the message is done.
    pub fn ack(&self) -> Result<(), Error> {
        self.settle().map(drop)
    }

    /// Tells the server to drop the message.
    pub fn discard(&self) -> Result<(), Error> {
        self.settle().map(drop)
    }

    /// Asks for the message again, after a while.
    pub fn again(&self, after: Duration) -> Result<(), Error> {
        let (queue, mut message) = self.settle()?;
        message.returned += 1;
        if after.is_zero() {
            queue.put(message);
        } else {
            tokio::spawn(async move {
                sleep(after).await;
                queue.put(message);
            });
        }
        Ok(())
    }

    fn settle(&self) -> Result<(Arc<Queue>, Self), Error> {
        let queue = self.queue.clone().ok_or(Error::NotOpen)?;
        let message = queue.letters().open.remove(&self.number).ok_or(Error::NotOpen)?;
        Ok((queue, message))
    }
}

/// A server.
#[derive(Default)]
pub struct Post {
    queues: Mutex<Vec<Arc<Queue>>>,
    numbers: AtomicU64,
}

impl Post {
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection. A clone is the same one.
#[derive(Clone)]
pub struct Client {
    post: Arc<Post>,
    closed: watch::Sender<bool>,
}

impl Client {
    /// Connects to a server.
    pub fn connect(post: &Arc<Post>) -> Self {
        Self { post: Arc::clone(post), closed: watch::Sender::new(false) }
    }

    /// Returns host and port of the server.
    pub fn address(&self) -> (&'static str, u16) {
        ("loft", 4000)
    }

    /// Publishes a message and returns the number that the server gave it.
    pub fn publish(&self, message: Message) -> Result<u64, Error> {
        self.send(message).map(|(number, _)| number)
    }

    /// Publishes a message and waits for the answer.
    pub async fn request(&self, mut message: Message, limit: Duration) -> Result<Message, Error> {
        let inbox = format!("inbox.{}", self.post.next_number());
        let mut answers = self.subscribe(&inbox, None);
        message.reply = Some(inbox);
        if let (_, 0) = self.send(message)? {
            return Err(Error::NoResponders);
        }
        let answer = timeout(limit, answers.next()).await.map_err(|_| Error::TimedOut)?;
        answer.ok_or(Error::Closed)
    }

    /// Subscribes to a subject; `*` stands for one word. Each message reaches one member of a group, and the group stays when they leave.
    pub fn subscribe(&self, subject: &str, group: Option<&str>) -> Mailbox {
        let mut queues = self.post.queues();
        let known =
            queues.iter().find(|queue| group.is_some() && queue.subject == subject && queue.group.as_deref() == group);
        let queue = known.cloned().unwrap_or_else(|| {
            let (subject, group) = (subject.to_owned(), group.map(str::to_owned));
            let queue = Arc::new(Queue { subject, group, letters: Mutex::default(), change: Notify::new() });
            queues.push(Arc::clone(&queue));
            queue
        });
        Mailbox { client: self.clone(), queue, held: VecDeque::new(), prefetch: 1 }
    }

    /// Ends the connection and its subscriptions.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Returns the number of the message, and how many subscriptions and groups get it.
    fn send(&self, message: Message) -> Result<(u64, usize), Error> {
        if *self.closed.borrow() {
            return Err(Error::Closed);
        }
        if message.payload.len() > MAX_BODY {
            return Err(Error::TooLarge);
        }
        let number = self.post.next_number();
        let queues = self.post.queues();
        let reached = queues.iter().filter(|queue| matches(&queue.subject, &message.subject));
        let count = reached.inspect(|queue| queue.put(Message { number, ..message.clone() })).count();
        Ok((number, count))
    }
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (wanted, words) = (pattern.split('.'), subject.split('.'));
    wanted.clone().count() == words.clone().count()
        && wanted.zip(words).all(|(wanted, word)| wanted == "*" || wanted == word)
}

/// A subscription.
pub struct Mailbox {
    client: Client,
    queue: Arc<Queue>,
    held: VecDeque<Message>,
    prefetch: usize,
}

impl Mailbox {
    /// Sets how many messages the server hands over at once.
    pub fn set_prefetch(&mut self, messages: usize) {
        self.prefetch = messages;
    }

    /// Waits for a message; `None` says that the connection is closed. A dropped call loses nothing.
    pub async fn next(&mut self) -> Option<Message> {
        if self.held.is_empty() {
            let mut closed = self.client.closed.subscribe();
            self.held = tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => return None,
                taken = self.queue.take(self.prefetch) => taken,
            };
        }
        self.try_next()
    }

    /// Returns a message that was handed over already.
    pub fn try_next(&mut self) -> Option<Message> {
        self.held.pop_front()
    }

    /// Gives back what was handed over and not taken.
    pub fn give_back(&mut self) {
        for message in self.held.drain(..) {
            if let Ok((queue, message)) = message.settle() {
                queue.put(message);
            }
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.give_back();
        if self.queue.group.is_none() {
            self.client.post.queues().retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        }
    }
}

/// What a subscription or a group has at the server.
struct Queue {
    subject: String,
    group: Option<String>,
    letters: Mutex<Letters>,
    change: Notify,
}

#[derive(Default)]
struct Letters {
    waiting: BTreeMap<u64, Message>,
    /// Handed over and not settled.
    open: BTreeMap<u64, Message>,
}

impl Queue {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: Message) {
        self.letters().waiting.insert(message.number, message);
        self.change.notify_one();
    }

    async fn take(self: &Arc<Self>, most: usize) -> VecDeque<Message> {
        loop {
            let taken = self.try_take(most);
            if !taken.is_empty() {
                return taken;
            }
            self.change.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>, most: usize) -> VecDeque<Message> {
        let (mut letters, mut taken) = (self.letters(), VecDeque::new());
        while taken.len() < most {
            let Some((number, message)) = letters.waiting.pop_first() else { break };
            taken.push_back(Message { queue: Some(Arc::clone(self)), ..message.clone() });
            letters.open.insert(number, message);
        }
        if !letters.waiting.is_empty() {
            self.change.notify_one();
        }
        taken
    }
}

/// Says what went wrong.
#[derive(Clone, Copy, Debug)]
pub enum Error {
    /// The connection is closed.
    Closed,
    /// Nobody listens to a request.
    NoResponders,
    /// The message is settled already.
    NotOpen,
    /// There was no answer in time.
    TimedOut,
    /// The body is too large.
    TooLarge,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closed",
            Self::NoResponders => "nobody listens there",
            Self::NotOpen => "the message is settled already",
            Self::TimedOut => "there was no answer in time",
            Self::TooLarge => "the body is larger than 1 MiB",
        })
    }
}

impl std::error::Error for Error {}

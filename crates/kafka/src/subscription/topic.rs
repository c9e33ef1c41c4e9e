use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{BatchPolicy, Pattern, Subscription};
use throughline_core::{BrokerError, Delivery};
use tracing::warn;

use super::choices::{Assignment, Isolation, StartPosition};
use super::new_topic::NewTopic;
use super::replies::ReplyTopics;
use super::retry::{RetryByTopic, RetryTopics, Wait, origin};
use crate::names::{self, check_text, is_topic};
use crate::semconv::SYSTEM;

/// How many messages of one partition are held unsettled where the user sets nothing.
const DEFAULT_PREFETCH: usize = 1_000;

/// How often offsets are committed where the user sets nothing.
const DEFAULT_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a rebalance waits for the handlers of lost partitions where the user sets nothing.
const DEFAULT_REBALANCE_TIMEOUT: Duration = Duration::from_secs(10);

/// What to consume from Kafka: topics, all topics of a pattern, or single partitions.
///
/// With a [`group`](Self::group) the members share the partitions, and the group's place is kept by the broker: an offset is committed
/// when its message and all before it are settled. Without one the subscription gets every message that is published from its start
/// on, and nothing is kept.
///
/// | setting | default | why |
/// | --- | --- | --- |
/// | [`start`](Self::start) | with a group the earliest message, without one the latest | a new group loses nothing |
/// | order | by partition, one message at a time in each | what Kafka promises |
/// | [`assignment`](Self::assignment) | cooperative-sticky | a rebalance stops only the partitions that move |
/// | [`isolation`](Self::isolation) | read committed | what an aborted transaction wrote never was |
/// | [`prefetch`](Self::prefetch) | 1,000 messages of each partition | bounds memory, and how far a slow message is overtaken |
/// | [`commit_interval`](Self::commit_interval) | 1 s | bounds what comes twice after a crash |
/// | [`rebalance_timeout`](Self::rebalance_timeout) | 10 s | handlers of lost partitions finish, the group does not wait for ever |
/// | [`reply_topics`](Self::reply_topics) | none | whoever writes a message would choose where the service publishes |
/// | delivery | at least once | [`exactly_once`](Self::exactly_once) costs a transaction for each message or batch |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::broker::Subscription;
/// use throughline_kafka::Topic;
///
/// let topic = Topic::new("orders.placed").group("billing").batch(100, Duration::from_millis(50));
/// let subscription = Subscription::from(topic);
/// assert_eq!(subscription.group(), Some("billing"));
/// ```
#[derive(Clone, Debug)]
pub struct Topic {
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) is_pattern: bool,
    pub(crate) partitions: Vec<i32>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) declared: Option<Arc<NewTopic>>,
    pub(crate) start: Option<StartPosition>,
    pub(crate) static_member: Option<Arc<str>>,
    pub(crate) assignment: Assignment,
    pub(crate) isolation: Isolation,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) order: Order,
    pub(crate) batch: Option<BatchPolicy>,
    pub(crate) prefetch: Option<usize>,
    pub(crate) commit: Commit,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) retry: Option<Arc<RetryTopics>>,
    pub(crate) replies: Arc<ReplyTopics>,
    /// The `transactional.id`.
    pub(crate) exactly_once: Option<Arc<str>>,
}

/// Which messages wait for each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    ByKey(usize),
    ByPartition,
    Unordered(usize),
}

/// When offsets are committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Commit {
    EachMessage,
    Every(Duration),
}

impl Topic {
    /// Creates a subscription to one topic.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_kafka::Topic;
    /// assert_eq!(Subscription::from(Topic::new("orders")).destination(), "orders");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            names: vec![name.into()],
            is_pattern: false,
            partitions: Vec::new(),
            group: None,
            declared: None,
            start: None,
            static_member: None,
            assignment: Assignment::CooperativeSticky,
            isolation: Isolation::ReadCommitted,
            properties: Vec::new(),
            order: Order::ByPartition,
            batch: None,
            prefetch: None,
            commit: Commit::Every(DEFAULT_COMMIT_INTERVAL),
            rebalance_timeout: DEFAULT_REBALANCE_TIMEOUT,
            retry: None,
            replies: Arc::default(),
            exactly_once: None,
        }
    }

    /// Creates a subscription to all topics whose whole name matches a regular expression, also those created later.
    ///
    /// The expression is the client's: POSIX extended, matched by librdkafka. It must start with `^`, as the client takes a name
    /// without it for a topic; where it is missing it is added. New topics are noticed within `topic.metadata.refresh.interval.ms`
    /// (5 minutes), which is a [`property`](Self::property).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_kafka::Topic;
    /// assert_eq!(Subscription::from(Topic::pattern("^orders[.].*")).destination(), "^orders[.].*");
    /// ```
    #[must_use]
    pub fn pattern(expression: &str) -> Self {
        let anchored = if expression.starts_with('^') { expression.to_owned() } else { format!("^{expression}") };
        Self { is_pattern: true, ..Self::new(anchored) }
    }

    /// Creates the topics of the subscription that are missing, and with them its retry topics and those of its replies and dead letters,
    /// when the app starts. It is for development and tests: in production a topic is usually created before, by whoever answers for it.
    ///
    /// A topic that exists is left as it is; a warning says where its number of partitions is another one. Without this, all of them must
    /// exist. Topics that a handler chooses at run time are not created.
    ///
    /// # Errors
    ///
    /// The start fails with what the brokers say where they refuse to create one, and with kind
    /// [`Configuration`](throughline_core::broker::BrokerErrorKind::Configuration) for a [`pattern`](Self::pattern).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::{NewTopic, Topic};
    /// let orders = Topic::new("orders.placed").group("stock").declare(NewTopic::partitions(3).replication(1));
    /// # let _ = orders;
    /// ```
    #[must_use]
    pub fn declare(mut self, new: NewTopic) -> Self {
        self.declared = Some(Arc::new(new));
        self
    }

    /// Adds a further topic to the same subscription.
    #[must_use]
    pub fn and(mut self, name: impl Into<Arc<str>>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Takes a partition by its number instead of sharing the topic with the members of the group; may be called for several.
    ///
    /// There are no rebalances then. The group is only the name under which the offsets are kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_kafka::Topic;
    /// let subscription = Subscription::from(Topic::new("orders").partition(3));
    /// assert_eq!(subscription.needs().len(), 1);
    /// ```
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partitions.push(partition);
        self
    }

    /// Joins a consumer group (`group.id`): each partition is read by one member, and the group's offsets are kept by the broker.
    #[must_use]
    pub fn group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Sets where a group begins that is new to a topic. The default is the earliest message; without a group it is what is published
    /// from now on.
    ///
    /// A group that exists goes on at the first message that it has not handled and that still exists: also where messages were deleted
    /// before it came to them, and in a partition that was added. The log says what the server has deleted. Of a
    /// [`partition`](Self::partition) that is taken by its number it counts where the group has no offset of that one.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::{StartPosition, Topic};
    /// let topic = Topic::new("orders").group("stock").start(StartPosition::Latest);
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn start(mut self, position: StartPosition) -> Self {
        self.start = Some(position);
        self
    }

    /// Makes the member a static one (`group.instance.id`): a restart within the session timeout (45 s) causes no rebalance. The id
    /// must be another one in each process of the group.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").static_member("stock-1");
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub fn static_member(mut self, id: impl Into<Arc<str>>) -> Self {
        self.static_member = Some(id.into());
        self
    }

    /// Sets how the group divides its partitions (`partition.assignment.strategy`). The members of a group must agree: to change a
    /// running group from an eager strategy to the default, see the guide.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::{Assignment, Topic};
    /// let topic = Topic::new("orders").group("stock").assignment(Assignment::Range);
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn assignment(mut self, strategy: Assignment) -> Self {
        self.assignment = strategy;
        self
    }

    /// Sets whether messages of transactions that are open or were aborted are read (`isolation.level`). They are not, by default.
    #[must_use]
    pub const fn isolation(mut self, level: Isolation) -> Self {
        self.isolation = level;
        self
    }

    /// Sets any further property of the client by its name, for this subscription alone. It is checked when the app starts; those that
    /// would break what is promised here are refused, with the reason.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").property("fetch.min.bytes", "65536");
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Keeps the order of the messages of one key only, and handles up to `workers` keys at the same time; zero counts as one. Keys
    /// share the workers by their hash, and messages without a key keep the order of their partition.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").by_key(16);
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn by_key(mut self, workers: usize) -> Self {
        self.order = Order::ByKey(at_least_one(workers));
        self
    }

    /// Gives up the order: up to `workers` messages, or batches, are handled at the same time; zero counts as one.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").unordered(64);
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn unordered(mut self, workers: usize) -> Self {
        self.order = Order::Unordered(at_least_one(workers));
        self
    }

    /// Hands messages to the handler in batches: when `max_messages` are there, or when the first has waited for `max_wait`.
    ///
    /// A batch holds messages of all partitions of the subscription, those of each partition in their order. One batch is handled after
    /// the other, unless the order is given up with [`unordered`](Self::unordered).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::broker::Subscription;
    /// use throughline_kafka::Topic;
    /// let billing = Subscription::from(Topic::new("orders").group("billing").batch(100, Duration::from_millis(50)));
    /// assert_eq!(billing.batch().map(|policy| policy.max_messages), Some(100));
    /// ```
    #[must_use]
    pub const fn batch(mut self, max_messages: usize, max_wait: Duration) -> Self {
        self.batch = Some(BatchPolicy::new(max_messages, max_wait));
        self
    }

    /// Sets how many messages of one partition are held here without being committed; zero counts as one. When so many are held, the
    /// partition is paused until half of them are done. A message that takes long holds up the partition at this distance, also where
    /// the order is given up.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").prefetch(100);
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(at_least_one(messages));
        self
    }

    /// Sets how often offsets are committed in the background. They are also committed before a partition is lost and at the end.
    #[must_use]
    pub const fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit = Commit::Every(interval);
        self
    }

    /// Commits after each message and waits for the broker's answer before the next one of the partition: a crash then repeats at most
    /// the message that was being handled, and each message costs a request.
    ///
    /// Where a message before it is not done yet, [`by_key`](Self::by_key) for example, it is committed together with that one.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("payments").group("ledger").commit_each_message();
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn commit_each_message(mut self) -> Self {
        self.commit = Commit::EachMessage;
        self
    }

    /// Lets messages that failed wait in topics of their own instead of in place, so that those behind them go on: the order is given
    /// up for them. After the last delay a message that fails again is given up: a dead letter, where one is set.
    ///
    /// For each delay there must be a topic `{topic}.{group}.retry.{number}`, counted from 1; this subscription reads it, too. The
    /// message is forwarded as it is, with the headers `retry-attempt`, `retry-due`, `retry-error` and `retry-origin`. There may be nine
    /// delays. They count in place of the attempts and delays of a [`RetryPolicy`](throughline_core::RetryPolicy), of which the predicate
    /// holds; a policy of the subscription with `attempts` is refused at the start.
    ///
    /// No message waits in a topic for longer than the topic's own delay, from the time at which it was written there. A delay that
    /// a handler asks for itself takes the first topic whose delay is as long. Where none is, the message waits in the last one in several
    /// rounds: it is written there again, at most a hundred times, and a day in all. With [`exactly_once`](Self::exactly_once) there is
    /// one round, and the message comes earlier than it was asked for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").retry_topics([Duration::from_secs(5), Duration::from_secs(60)]);
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub fn retry_topics(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.retry = Some(Arc::new(RetryTopics::new(delays)));
        self
    }

    /// Sets how long a rebalance waits for the handlers of partitions that go to another member. What is not done by then is not
    /// committed, and that member gets it again. The default is 10 s; one that is not below `max.poll.interval.ms` (the client's
    /// default is 300 s) is refused at the start, as the group would throw the member out meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_kafka::Topic;
    /// let topic = Topic::new("orders").group("stock").rebalance_timeout(Duration::from_secs(60));
    /// # let _ = topic;
    /// ```
    #[must_use]
    pub const fn rebalance_timeout(mut self, limit: Duration) -> Self {
        self.rebalance_timeout = limit;
        self
    }

    /// Consumes, processes and produces exactly once: what is published for a message and the group's offset are committed in one
    /// transaction, or neither is. Who reads the results with `read_committed` sees each once, also when a process is killed in
    /// between.
    ///
    /// The transaction holds the replies, what the handler sends with its [`Publisher`](throughline_core::Publisher) argument, and
    /// dead letters. What is sent with a publisher of [`Kafka`](crate::Kafka) itself, or to another system, is no part of it. Nor is a
    /// handler run exactly once: an attempt that fails is taken back and made again. A task that a handler leaves behind publishes
    /// with whatever transaction is open then, and fails where none is.
    ///
    /// # The id
    ///
    /// `id` is the `transactional.id`. It must be another one in each process of the group, and in each subscription: who starts with
    /// an id takes it from whoever has it, whose subscription then ends with an error of kind
    /// [`Ended`](throughline_core::broker::BrokerErrorKind::Ended). It should be the same one after a restart of the process, such as
    /// the ordinal of
    /// a stateful set: the start then ends at once what a killed process left open. Otherwise that keeps readers, and the members
    /// that got its partitions, waiting until `transaction.timeout.ms` is over.
    ///
    /// # How it works
    ///
    /// There is one transaction at a time, of one message or one [`batch`](Self::batch), whatever is said of order and concurrency.
    /// Each takes some ten milliseconds, however many messages it has: batches are what makes it fast. A message that is to be tried
    /// again comes
    /// again in this process, after its delay and before others. A batch of which one message fails is taken back as a whole, and its
    /// messages come one by one, each in a batch of its own.
    ///
    /// | property | default | what it is here |
    /// | --- | --- | --- |
    /// | `transaction.timeout.ms` | 60000 | the longest a handler may take from its first publish on; the broker aborts after it, and the subscription ends |
    ///
    /// # Errors
    ///
    /// The start fails with kind [`Configuration`](throughline_core::broker::BrokerErrorKind::Configuration) without a
    /// [`group`](Self::group), with an empty id or one that another subscription of the connection has, with
    /// [`ReadUncommitted`](Isolation::ReadUncommitted), and where `enable.idempotence` is off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::broker::Subscription;
    /// use throughline_kafka::Topic;
    ///
    /// let billing = Topic::new("orders").group("billing").exactly_once("billing-1").batch(100, Duration::from_millis(50));
    /// assert_eq!(Subscription::from(billing).needs().len(), 1);
    /// ```
    #[must_use]
    pub fn exactly_once(mut self, id: impl Into<Arc<str>>) -> Self {
        self.exactly_once = Some(id.into());
        self
    }

    /// Allows messages to say where their answer goes, with the header `reply-to`. Each entry is the name of a topic, in which `*` stands
    /// for any characters. By default no header is followed: whoever can write to the topic would choose where this service publishes,
    /// with the rights of the service.
    ///
    /// A header that names another topic is passed over with a line in the log, and stays readable in the headers of the message. An
    /// answer to a topic that does not exist fails at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::Topic;
    /// let prices = Topic::new("prices").group("prices").reply_topics(["replies.*", "audit"]);
    /// # let _ = prices;
    /// ```
    #[must_use]
    pub fn reply_topics<T: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.replies = Arc::new(ReplyTopics::new(topics));
        self
    }
}

impl Topic {
    /// Where to begin in a partition of which the group has no offset.
    pub(crate) fn start_position(&self) -> StartPosition {
        let default = if self.group.is_some() { StartPosition::Earliest } else { StartPosition::Latest };
        self.start.unwrap_or(default)
    }

    /// How many messages of one partition are held at most, where so many are handled at the same time. A batch must fit.
    pub(crate) fn most_held(&self, at_once: usize) -> usize {
        let of_batch = self.batch.map_or(0, |policy| policy.max_messages);
        let handled = match self.order {
            // Of a partition one after the other.
            Order::ByPartition => of_batch,
            Order::ByKey(_) | Order::Unordered(_) => at_once.max(of_batch),
        };
        match self.prefetch {
            None => handled.max(DEFAULT_PREFETCH),
            Some(messages) => {
                if messages < handled && at_once > 1 {
                    warn!(
                        destination = ?self.names,
                        group = self.group.as_deref(),
                        prefetch = messages,
                        needed = handled,
                        "`prefetch` lets fewer messages of a partition be handled at the same time than the handler could: raise it, or \
                         leave it out"
                    );
                }
                messages.max(of_batch)
            }
        }
    }

    /// How many deliveries are handled at the same time: with an order by partition as many as there are partitions. Batches hold
    /// messages of several and follow each other.
    pub(crate) const fn concurrency(&self) -> usize {
        match self.order {
            _ if self.exactly_once.is_some() => 1,
            Order::Unordered(workers) => workers,
            Order::ByKey(_) | Order::ByPartition if self.batch.is_some() => 1,
            Order::ByKey(workers) => workers,
            Order::ByPartition => usize::MAX,
        }
    }

    /// Returns the topics to read, those of retries among them.
    pub(crate) fn all_names(&self) -> Result<Vec<Arc<str>>, BrokerError> {
        let Some(retry) = &self.retry else { return Ok(self.names.clone()) };
        let Some(group) = &self.group else {
            return Err(BrokerError::configuration("retry topics are those of a group: add `.group(..)`"));
        };
        if self.is_pattern || !self.partitions.is_empty() {
            return Err(BrokerError::configuration(
                "retry topics have the name of a topic before theirs: subscribe to topics by name, and to no partition alone",
            ));
        }
        let waiting = retry.all_names(&self.names, group)?;
        Ok(self.names.iter().map(Arc::clone).chain(waiting).collect())
    }

    /// Tells whether messages of a topic wait there for their next attempt.
    pub(crate) fn is_retry_topic(&self, topic: &str) -> bool {
        self.retry.is_some() && !self.names.iter().any(|name| **name == *topic)
    }

    /// Returns the topic under which telemetry shows the messages of a topic: where they waited, it is the one they were published to first.
    // ATTR-K-13.
    pub(crate) fn shown_as<'a>(&self, topic: &'a str) -> &'a str {
        match &self.group {
            Some(group) if self.is_retry_topic(topic) => origin(topic, group),
            _ => topic,
        }
    }

    pub(crate) fn retry_route(&self) -> Option<RetryByTopic> {
        let (topics, group) = self.retry.as_ref().zip(self.group.as_ref())?;
        Some(RetryByTopic::new(group, topics))
    }

    /// Reads from a message that waited in a retry topic which attempt this is, and returns how long it still has to wait.
    pub(crate) fn read_retry(&self, delivery: Delivery) -> (Delivery, Wait) {
        match &self.retry {
            Some(retry) => retry.read(delivery),
            None => (delivery, Wait::default()),
        }
    }

    /// Refuses a subscription with a name that the brokers do not take.
    pub(crate) fn check_names(&self) -> Result<(), BrokerError> {
        if let Some(group) = &self.group {
            check_text("the group", group)?;
        }
        if let Some(id) = &self.exactly_once {
            check_text("the transactional id", id)?;
        }
        if let Some(id) = &self.static_member
            && !is_topic(id)
        {
            return Err(names::refused("the id of the static member", id, "it has the form of a topic's name"));
        }
        if self.is_pattern {
            let names = self.names.iter();
            return names.into_iter().try_for_each(|expression| check_text("the expression for topics", expression));
        }
        let all = self.all_names()?;
        match all.iter().find(|name| !is_topic(name)) {
            Some(name) if self.is_retry_topic(name) => {
                let advice = "the name of a retry topic is made of those of the topic and the group: shorten them, and use in both what a topic may have";
                Err(names::refused("the retry topic", name, advice))
            }
            Some(name) => Err(names::refused("the topic", name, "")),
            None => Ok(()),
        }
    }
}

const fn at_least_one(number: usize) -> usize {
    if number == 0 { 1 } else { number }
}

impl From<Topic> for Subscription {
    fn from(topic: Topic) -> Self {
        let mut names = topic.names.iter().map(|name| Pattern::exact(Arc::clone(name)));
        // There is always one: `new` takes it.
        let first = names.next().unwrap_or_else(|| Pattern::exact(""));
        let mut subscription = names.fold(Self::new(SYSTEM, first), Self::with_pattern);
        if let Some(group) = &topic.group {
            subscription = subscription.with_group(Arc::clone(group));
        }
        if let Some(policy) = topic.batch {
            subscription = subscription.with_batch(policy);
        }
        subscription = match topic.retry_route() {
            Some(route) => subscription.with_retry_route(Arc::new(route)),
            None => subscription,
        };
        if topic.exactly_once.is_none() {
            subscription = subscription.without_redelivery();
        }
        if topic.is_pattern {
            subscription = subscription.with_need("a regular expression for topics");
        }
        if !topic.partitions.is_empty() {
            subscription = subscription.with_need("partitions by their number");
        }
        if topic.exactly_once.is_some() {
            subscription = subscription.with_need("transactions");
        }
        subscription.with_native(topic)
    }
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::BrokerErrorKind;

    use super::*;
    use crate::names::{LONGEST, LONGEST_TEXT};

    #[test]
    fn an_expression_without_an_anchor_gets_one() {
        assert_eq!(&*Topic::pattern("orders.*").names[0], "^orders.*");
        assert_eq!(&*Topic::pattern("^orders.*").names[0], "^orders.*");
    }

    #[test]
    fn the_memory_broker_can_imitate_plain_topics_only() {
        assert!(Subscription::from(Topic::new("orders").group("g").by_key(4)).needs().is_empty());
        assert_eq!(Subscription::from(Topic::pattern("^orders")).needs().len(), 1);
        assert_eq!(Subscription::from(Topic::new("orders").partition(0).partition(1)).needs().len(), 1);
        assert_eq!(Subscription::from(Topic::new("orders").group("g").exactly_once("g-1")).needs().len(), 1);
    }

    #[test]
    fn nothing_is_handled_by_no_worker() {
        assert_eq!(Topic::new("orders").by_key(0).order, Order::ByKey(1));
        assert_eq!(Topic::new("orders").unordered(0).order, Order::Unordered(1));
        assert_eq!(Topic::new("orders").prefetch(0).prefetch, Some(1));
        let held = |topic: Topic, at_once| topic.most_held(at_once);
        let batched = || Topic::new("orders").batch(5_000, Duration::from_millis(50));
        assert_eq!(held(Topic::new("orders"), usize::MAX), 1_000, "of a partition one after the other");
        assert_eq!(held(Topic::new("orders").unordered(64), 2_000), 2_000, "no handler is kept idle");
        assert_eq!(held(Topic::new("orders").by_key(64).prefetch(16), 64), 16, "what the user has set stays");
        assert_eq!((held(batched(), 5_000), held(batched().prefetch(10), 1)), (5_000, 5_000), "a batch must fit");
    }

    #[test]
    fn a_subscription_with_a_name_that_is_none_is_refused() {
        let (long, text) = ("a".repeat(LONGEST + 1), "g".repeat(LONGEST_TEXT + 1));
        let orders = || Topic::new("orders");
        let retried = |group: &str| orders().group(group).retry_topics([Duration::from_secs(1)]);
        for (topic, named) in [
            (Topic::new(""), "topic"),
            (Topic::new("a b"), "`a b`"),
            (Topic::new(long.as_str()), "249"),
            (orders().and("a\0b"), "topic"),
            (orders().group(""), "group"),
            (orders().group(text.as_str()), "group"),
            (orders().group("a\0"), "group"),
            (orders().group("g").static_member("a b"), "static member"),
            (orders().group("g").exactly_once(text.as_str()), "transactional id"),
            (Topic::pattern("^a\0"), "expression"),
            (retried("two words"), "retry topic"),
            (retried(long.as_str()), "retry topic"),
        ] {
            let error = topic.check_names().unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Configuration);
            assert!(error.to_string().contains(named), "{error}");
        }
        for topic in [orders().group("two words"), orders(), Topic::pattern("^a b.*"), retried("g")] {
            assert!(topic.check_names().is_ok(), "{topic:?}");
        }
    }
}

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset};
use throughline_core::broker::{BrokerError, BrokerErrorKind};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::burst::{Burst, to_received};
use super::context::Context;
use super::orders::{FINISH_WAIT, Orders, Task};
use super::partition::Partition;
use super::shared::Shared;
use super::{start, watermarks};
use crate::config::unusable;
use crate::error;
use crate::record::to_delivery;
use crate::subscription::{Commit, Order, read_retry};

/// How long a poll waits for a message. It also bounds how late an order is followed and a commit begins.
const POLL_WAIT: Duration = Duration::from_millis(50);

/// The same while a partition is paused, which must go on soon after its handlers are done.
const PAUSED_POLL_WAIT: Duration = Duration::from_millis(2);

/// How long the thread waits for room in a partition before it pauses it: a pause makes the client fetch again what it holds.
const ROOM_WAIT: Duration = Duration::from_millis(20);

/// How many messages are taken before the clock is looked at.
const BURST: usize = 256;

/// How many messages are handed over at once, if so many are here: a hand-over wakes up who receives, which costs more than a message.
const HAND_OVER: usize = 64;

/// A body of so many bytes is copied once, and not a second time where it is received.
const LARGE: usize = 16 * 1024;

/// How often the ends of the partitions are looked up for the lag.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// How long the check of a topic may take.
const METADATA_WAIT: Duration = Duration::from_secs(10);

/// How long a move to another offset may take.
const SEEK_WAIT: Duration = Duration::from_secs(10);

type Ready = oneshot::Sender<Result<(), BrokerError>>;

/// Messages in the order in which they came, or why there will be none.
pub(super) type HandOver = Result<Burst, BrokerError>;

/// Is the thread of one subscription. It polls all the time, so that a slow handler does not lose its membership, and hands messages
/// out as long as not too many of their partition are held.
pub(super) struct Poller {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    messages: mpsc::UnboundedSender<HandOver>,
    /// Messages that are handed over with the next ones, before this thread waits for anything.
    collected: Burst,
    records_keys: bool,
    /// The partitions of the last messages; looked up by the client's handle of the topic, which costs nothing.
    recent: Vec<Recent>,
    generation: u64,
    paused: Vec<Arc<Partition>>,
    last_commit: Instant,
    last_lag: Instant,
}

struct Recent {
    topic: usize,
    partition: Arc<Partition>,
}

impl Poller {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: Arc<Orders>,
        messages: mpsc::UnboundedSender<HandOver>,
        records_keys: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            orders,
            messages,
            collected: Burst::new(records_keys),
            records_keys,
            recent: Vec::new(),
            generation: 0,
            paused: Vec::new(),
            last_commit: now,
            last_lag: now,
        }
    }

    /// Polls until it is told to end, or the subscription ends by itself.
    pub(super) fn run(mut self, config: &ClientConfig, ready: Ready) -> Result<(), BrokerError> {
        let consumer = match self.begin(config) {
            Ok(consumer) => consumer,
            Err(failed) => {
                let _ = ready.send(Err(failed));
                return Ok(());
            }
        };
        let mut ready = Some(ready);
        let ended = loop {
            if self.shared.is_assigned()
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(Ok(()));
            }
            let result = match self.orders.task() {
                Task::Take => self.take(&consumer),
                Task::Stay => self.stay(&consumer),
                Task::End => break None,
            };
            if let Err(ended) = result {
                break Some(ended);
            }
            self.look_after(&consumer);
        };
        let result = self.end(consumer);
        if let Some(ended) = ended {
            match ready.take() {
                Some(ready) => drop(ready.send(Err(ended))),
                None => drop(self.messages.send(Err(ended))),
            }
        }
        result
    }

    /// Connects, and asks for the partitions.
    fn begin(&mut self, config: &ClientConfig) -> Result<Arc<BaseConsumer<Context>>, BrokerError> {
        let context = Context { shared: Arc::clone(&self.shared), client: crate::context::Context::default() };
        let consumer: BaseConsumer<Context> =
            config.create_with_context(context).map_err(|failed| unusable(&failed))?;
        let consumer = Arc::new(consumer);
        self.shared.set_consumer(&consumer);
        let topic = &self.shared.settings;
        let all_names = topic.all_names()?;
        if !topic.is_pattern {
            for name in &all_names {
                check_topic(&consumer, name, &topic.partitions)?;
            }
        }
        if topic.partitions.is_empty() {
            let names: Vec<&str> = all_names.iter().map(AsRef::as_ref).collect();
            consumer
                .subscribe(&names)
                .map_err(|failed| error::broker(&format!("cannot subscribe to {names:?}"), &failed))?;
        } else {
            let keys: Vec<_> = topic
                .names
                .iter()
                .flat_map(|name| topic.partitions.iter().map(|number| (Arc::clone(name), *number)))
                .collect();
            self.assign_given(&consumer, &keys)?;
        }
        Ok(consumer)
    }

    fn assign_given(&self, consumer: &BaseConsumer<Context>, keys: &[(Arc<str>, i32)]) -> Result<(), BrokerError> {
        let cannot = |failed: KafkaError| error::broker("the partitions could not be assigned", &failed);
        let mut list = start::list_of(keys);
        let starts = start::positions(consumer, &self.shared, &mut list).map_err(cannot)?;
        self.shared.own(starts);
        consumer.assign(&list).map_err(cannot)?;
        self.shared.commit_starts(consumer);
        Ok(())
    }

    /// Hands out what comes, for a while.
    fn take(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        let result = self.poll_for_a_while(consumer);
        // What came before an error, too.
        self.hand_over();
        result
    }

    fn poll_for_a_while(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        // Those that wait for an attempt need no haste.
        let is_calm = self.paused.iter().all(|partition| self.shared.has_waiting(partition));
        let mut wait = if is_calm { POLL_WAIT } else { PAUSED_POLL_WAIT };
        for _ in 0..BURST {
            match consumer.poll(wait) {
                None => return Ok(()),
                Some(Ok(message)) => self.hand_out(consumer, &message),
                Some(Err(failed)) => judge(&failed)?,
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Stays a member without taking anything.
    fn stay(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        self.shared.forget_waiting();
        for partition in self.shared.partitions() {
            self.pause(consumer, &partition);
        }
        match consumer.poll(PAUSED_POLL_WAIT) {
            // It was fetched already; it is not committed and comes again.
            None | Some(Ok(_)) => Ok(()),
            Some(Err(failed)) => judge(&failed),
        }
    }

    fn hand_out(&mut self, consumer: &BaseConsumer<Context>, message: &BorrowedMessage<'_>) {
        let Some(partition) = self.partition_of(message) else {
            debug!(topic = message.topic(), "a message of a partition that is not owned is left to its owner");
            return;
        };
        let held = partition.hand_out(message.offset());
        let lane = self.lane_of(&partition, message.key());
        let settings = &self.shared.settings;
        let is_retry = settings.is_retry_topic(&partition.topic);
        if is_retry || settings.exactly_once.is_some() || message.payload_len() > LARGE {
            let mut delivery = to_delivery(message, &partition.topic, self.records_keys);
            let mut wait = Duration::ZERO;
            if is_retry {
                (delivery, wait) = read_retry(delivery);
            }
            if settings.exactly_once.is_some() {
                // A transaction looks there whether the partition is still this member's.
                delivery.insert_extension(Arc::clone(&partition));
            }
            let received = to_received(delivery, Arc::clone(&partition), message.offset(), lane);
            if wait > Duration::ZERO {
                // Those behind it have waited less.
                self.shared.keep_waiting(&partition, wait, received);
                self.pause(consumer, &partition);
                return;
            }
            self.collected.push(received);
        } else {
            self.collected.copy(message, Arc::clone(&partition), lane);
        }
        if self.collected.len() >= HAND_OVER {
            self.hand_over();
        }
        let most = self.most_held();
        if held < most {
            return;
        }
        self.hand_over();
        if !partition.wait_for_room(most / 2, ROOM_WAIT) {
            self.pause(consumer, &partition);
        }
    }

    /// Hands over what is collected.
    fn hand_over(&mut self) {
        if self.collected.len() > 0 {
            let next = Burst::like(&self.collected);
            let collected = std::mem::replace(&mut self.collected, next);
            // Nobody receives any more where the subscription is closing: they are given up.
            let _ = self.messages.send(Ok(collected));
        }
    }

    /// The most messages of one partition that are held; a batch must fit.
    fn most_held(&self) -> usize {
        let settings = &self.shared.settings;
        settings.prefetch.max(settings.batch.map_or(0, |policy| policy.max_messages))
    }

    fn lane_of(&self, partition: &Partition, key: Option<&[u8]>) -> Option<u32> {
        match self.shared.settings.order {
            Order::ByPartition => Some(partition.lane),
            Order::Unordered(_) => None,
            Order::ByKey(workers) => {
                let mut hasher = DefaultHasher::new();
                (&partition.topic, partition.number, key).hash(&mut hasher);
                let workers = u64::try_from(workers).unwrap_or(u64::MAX);
                u32::try_from(hasher.finish() % workers).ok()
            }
        }
    }

    fn partition_of(&mut self, message: &BorrowedMessage<'_>) -> Option<Arc<Partition>> {
        let generation = self.shared.generation();
        if generation != self.generation {
            self.generation = generation;
            self.recent.clear();
        }
        // Only compared, never followed.
        let topic = message.topic_ptr() as usize;
        let number = message.partition();
        let recent = self.recent.iter().find(|recent| recent.topic == topic && recent.partition.number == number);
        if let Some(recent) = recent {
            return Some(Arc::clone(&recent.partition));
        }
        let partition = self.shared.partition(message.topic(), number)?;
        self.recent.push(Recent { topic, partition: Arc::clone(&partition) });
        Some(partition)
    }

    /// Does what is due: partitions that go on, messages to read again, commits, the lag.
    fn look_after(&mut self, consumer: &BaseConsumer<Context>) {
        if !self.paused.is_empty() && self.orders.task() == Task::Take {
            for received in self.shared.take_due() {
                self.collected.push(received);
            }
            self.hand_over();
            self.resume(consumer);
        }
        let now = Instant::now();
        if let Commit::Every(interval) = self.shared.settings.commit
            && self.shared.settings.group.is_some()
            && now.duration_since(self.last_commit) >= interval
        {
            self.last_commit = now;
            self.shared.commit_in_background(consumer);
        }
        if now.duration_since(self.last_lag) >= LAG_INTERVAL {
            self.last_lag = now;
            for partition in self.shared.partitions() {
                watermarks::note_end(consumer, &partition);
                self.rewind(consumer, &partition);
            }
        }
    }

    /// Reads a partition again from the first message that nobody settled, where one was given up that no one else gets.
    fn rewind(&self, consumer: &BaseConsumer<Context>, partition: &Arc<Partition>) {
        if self.orders.task() != Task::Take {
            return;
        }
        let Some(offset) = partition.take_rewind() else { return };
        warn!(
            topic = &*partition.topic,
            partition = partition.number,
            offset,
            "a message was given up and is read again"
        );
        if let Err(failed) = consumer.seek(&partition.topic, partition.number, Offset::Offset(offset), SEEK_WAIT) {
            warn!(error = %failed, "the partition cannot be read again yet; until then nothing of it is committed");
            partition.ask_for_rewind();
            return;
        }
        // What was handed out before belongs to a time that is over; nothing was polled since the move.
        self.shared.own([(Arc::clone(&partition.topic), partition.number, Some(offset))]);
    }

    fn pause(&mut self, consumer: &BaseConsumer<Context>, partition: &Arc<Partition>) {
        if self.paused.iter().any(|paused| Arc::ptr_eq(paused, partition)) {
            return;
        }
        let list = start::list_of(&[(Arc::clone(&partition.topic), partition.number)]);
        match consumer.pause(&list) {
            Ok(()) => self.paused.push(Arc::clone(partition)),
            Err(failed) => warn!(error = %failed, "a partition could not be paused"),
        }
    }

    fn resume(&mut self, consumer: &BaseConsumer<Context>) {
        let most = self.most_held();
        self.paused.retain(|partition| {
            let stays = partition.held() > most / 2 || self.shared.has_waiting(partition);
            if stays && partition.is_owned() {
                return true;
            }
            let list = start::list_of(&[(Arc::clone(&partition.topic), partition.number)]);
            if let Err(failed) = consumer.resume(&list) {
                debug!(error = %failed, "a partition that is not assigned any more does not go on");
            }
            false
        });
    }

    /// Commits what is settled. While other members come or go the group takes no commit: it is tried again when that is over.
    fn commit_at_last(&self, consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
        let deadline = Instant::now() + FINISH_WAIT;
        loop {
            match self.shared.commit_and_wait(consumer, &self.shared.partitions()) {
                Err(failed) if is_rebalancing(&failed) && Instant::now() < deadline => {
                    // The rebalance goes on by polling; partitions that are lost in it are committed by its callback.
                    drop(consumer.poll(PAUSED_POLL_WAIT));
                }
                result => return result,
            }
        }
    }

    /// Commits what is settled, leaves the group and closes the consumer.
    fn end(&self, consumer: Arc<BaseConsumer<Context>>) -> Result<(), BrokerError> {
        for partition in self.shared.partitions() {
            partition.leave();
        }
        let committed = self.commit_at_last(&consumer).map_err(|failed| error::commit(&failed));
        for partition in self.shared.partitions() {
            partition.lose();
        }
        self.shared.forget_commits();
        // Closes the consumer, which leaves the group; the callback finds nothing left to wait for.
        drop(consumer);
        committed
    }
}

/// Tells whether a commit was refused only because the group is dividing its partitions anew.
fn is_rebalancing(failed: &KafkaError) -> bool {
    matches!(
        failed.rdkafka_error_code(),
        Some(RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::RebalanceInProgress)
    )
}

/// Fails where there is no such topic, instead of a subscription that stays silent.
fn check_topic(consumer: &BaseConsumer<Context>, name: &str, partitions: &[i32]) -> Result<(), BrokerError> {
    let metadata = consumer
        .fetch_metadata(Some(name), METADATA_WAIT)
        .map_err(|failed| error::broker(&format!("cannot look up topic `{name}`"), &failed))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Err(error::unknown_topic(name));
    };
    if let Some(code) = topic.error() {
        let failed = KafkaError::MetadataFetch(RDKafkaErrorCode::from(code));
        return Err(error::broker(&format!("cannot subscribe to topic `{name}`"), &failed));
    }
    let missing = partitions.iter().find(|number| !topic.partitions().iter().any(|known| known.id() == **number));
    match missing {
        Some(number) => Err(BrokerError::new(
            BrokerErrorKind::NotFound,
            "UNKNOWN_TOPIC_OR_PARTITION",
            format!("topic `{name}` has no partition {number}; it has {}", topic.partitions().len()),
        )),
        None => Ok(()),
    }
}

/// Decides whether an error ends the subscription; what the client mends by itself does not.
fn judge(failed: &KafkaError) -> Result<(), BrokerError> {
    let ends = match failed {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::InconsistentGroupProtocol
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::InvalidGroupId
                // The client would go on behind messages that it cannot read: compressed in a way it was built without, or damaged.
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::UnsupportedCompressionType
        ),
        _ => false,
    };
    if ends {
        return Err(error::ended(failed));
    }
    warn!(error = %failed, "the consumer goes on after an error");
    Ok(())
}

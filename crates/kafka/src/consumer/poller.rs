use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Offset};
use throughline_core::BrokerError;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::context::Context;
use super::hand_out::{HandOut, HandOver};
use super::judge::{Judge, check_topic};
use super::orders::{Orders, Task};
use super::partition::{Beginning, Partition};
use super::report::{Occasion, is_rebalancing, report_assigned};
use super::shared::Shared;
use super::{start, watermarks};
use crate::config::{poll_interval, unusable};
use crate::delivery::Reading;
use crate::error;
use crate::subscription::Commit;

/// How long a poll waits for a message. It also bounds how late an order is followed and a commit begins.
const POLL_WAIT: Duration = Duration::from_millis(50);

/// The same while a partition is paused, which must go on soon after its handlers are done.
const PAUSED_POLL_WAIT: Duration = Duration::from_millis(2);

/// How many messages are taken before the clock is looked at.
const BURST: usize = 256;

/// How often the ends of the partitions are looked up for the lag.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// How long a move to another offset may take.
const SEEK_WAIT: Duration = Duration::from_secs(10);

type Ready = oneshot::Sender<Result<(), BrokerError>>;

/// The thread of one subscription. It polls all the time, so that a slow handler does not lose its membership, and hands messages
/// out as long as not too many of their partition are held.
pub(super) struct Poller {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    hand: HandOut,
    judge: Judge,
    paused: Vec<Arc<Partition>>,
    last_commit: Instant,
    last_lag: Instant,
}

impl Poller {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: Arc<Orders>,
        messages: mpsc::UnboundedSender<HandOver>,
        reading: Reading,
    ) -> Self {
        let now = Instant::now();
        Self {
            hand: HandOut::new(Arc::clone(&shared), Arc::clone(&orders), messages, reading),
            shared,
            orders,
            judge: Judge::default(),
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
        let again_within = poll_interval(config);
        let mut ready = Some(ready);
        let ended = loop {
            self.shared.polled(again_within);
            if self.shared.ownership.is_assigned()
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(Ok(()));
            }
            let result = match self.orders.task() {
                Task::Take => self.take(&consumer),
                Task::Stay => self.stay(&consumer),
                Task::End => break None,
            };
            let failed = result.and_then(|()| self.look_after(&consumer)).err();
            if let Some(failed) = failed.or_else(|| self.shared.take_failure()) {
                break Some(failed);
            }
        };
        let result = self.end(consumer);
        if let Some(ended) = ended {
            match ready.take() {
                Some(ready) => drop(ready.send(Err(ended))),
                None => self.hand.end(ended),
            }
        }
        result
    }

    /// Connects, and asks for the partitions.
    fn begin(&mut self, config: &ClientConfig) -> Result<Arc<BaseConsumer<Context>>, BrokerError> {
        let client = crate::context::Context::default();
        let context = Context { shared: Arc::clone(&self.shared), orders: Arc::clone(&self.orders), client };
        let consumer: BaseConsumer<Context> =
            config.create_with_context(context).map_err(|failed| unusable(&failed))?;
        let consumer = Arc::new(consumer);
        self.shared.member.set(&consumer);
        let topic = &self.shared.settings;
        let all_names = topic.all_names()?;
        if !topic.is_pattern {
            for name in &all_names {
                if self.orders.task() == Task::End {
                    // Nobody waits for it any more.
                    return Ok(consumer);
                }
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
        let group = self.shared.settings.group.as_deref();
        report_assigned(group, starts.own.iter().map(|(topic, number, _)| (topic, *number)));
        self.shared.ownership.own(starts.own);
        consumer.assign(&list).map_err(cannot)?;
        self.shared.commits.commit_starts(consumer);
        Ok(())
    }

    /// Hands out what comes, for a while.
    fn take(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        let result = self.poll_for_a_while(consumer);
        // What came before an error, too.
        self.hand.hand_over();
        result
    }

    fn poll_for_a_while(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        // Those that wait for an attempt need no haste.
        let is_calm = self.paused.iter().all(|partition| self.shared.waiting.has(partition));
        let mut wait = if is_calm { POLL_WAIT } else { PAUSED_POLL_WAIT };
        let began = self.shared.ownership.has_fetched().then(Instant::now);
        for _ in 0..BURST {
            match consumer.poll(wait) {
                None => {
                    // The client had nothing for so long: all that it has fetched is handed out. It also returns early, for other reasons.
                    if began.is_some_and(|began| began.elapsed() >= wait) && wait > Duration::ZERO {
                        self.shared.ownership.note_all_handed_out();
                    }
                    return Ok(());
                }
                Some(Ok(message)) => {
                    if let Some(full) = self.hand.hand_out(consumer, &message) {
                        self.pause(consumer, &full);
                    }
                }
                Some(Err(failed)) => self.judge.judge(&failed, &self.shared.settings)?,
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Stays a member without taking anything.
    fn stay(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        self.shared.waiting.give_up(|_| true);
        for partition in self.shared.ownership.partitions() {
            self.pause(consumer, &partition);
        }
        match consumer.poll(PAUSED_POLL_WAIT) {
            // It was fetched already; it is not committed and comes again.
            None | Some(Ok(_)) => Ok(()),
            Some(Err(failed)) => self.judge.judge(&failed, &self.shared.settings),
        }
    }

    /// Does what is due: partitions that go on, messages to read again, commits, the lag.
    fn look_after(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), BrokerError> {
        if self.orders.task() == Task::Take {
            self.hand.hand_out_due();
            self.resume(consumer);
        }
        let now = Instant::now();
        if let Commit::Every(interval) = self.shared.settings.commit
            && self.shared.settings.group.is_some()
            && now.duration_since(self.last_commit) >= interval
        {
            self.last_commit = now;
            self.shared.commits.commit_in_background(consumer);
        }
        if now.duration_since(self.last_lag) >= LAG_INTERVAL {
            self.last_lag = now;
            self.shared.measure();
            for partition in self.shared.ownership.partitions() {
                watermarks::note_end(consumer, &partition);
                self.rewind(consumer, &partition);
            }
            self.judge.look(consumer, &self.shared.settings)?;
        }
        Ok(())
    }

    /// Reads a partition again from the first message that nobody settled, where one was given up that no one else gets and no handler is
    /// at work.
    fn rewind(&self, consumer: &BaseConsumer<Context>, partition: &Arc<Partition>) {
        if self.orders.task() != Task::Take {
            return;
        }
        let Some(offset) = partition.rewind_to() else { return };
        warn!(
            topic = &*partition.topic,
            partition = partition.number,
            offset,
            "a message was given up and is read again"
        );
        if let Err(failed) = consumer.seek(&partition.topic, partition.number, Offset::Offset(offset), SEEK_WAIT) {
            warn!(error = %failed, "the partition cannot be read again yet; until then nothing of it is handled");
            return;
        }
        // What was handed out before belongs to a time that is over; nothing was polled since the move.
        self.shared.ownership.own([(Arc::clone(&partition.topic), partition.number, Beginning::At(offset))]);
    }

    fn pause(&mut self, consumer: &BaseConsumer<Context>, partition: &Arc<Partition>) {
        if self.paused.iter().any(|paused| Arc::ptr_eq(paused, partition)) {
            return;
        }
        let list = start::list_of(&[(Arc::clone(&partition.topic), partition.number)]);
        // What was fetched is thrown away.
        partition.note_fetched(-1);
        match consumer.pause(&list) {
            Ok(()) => self.paused.push(Arc::clone(partition)),
            Err(failed) => warn!(error = %failed, "a partition could not be paused"),
        }
    }

    fn resume(&mut self, consumer: &BaseConsumer<Context>) {
        let most = self.orders.most_held();
        self.paused.retain(|partition| {
            if partition.held() > most / 2 && partition.is_owned() {
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
        let deadline = self.orders.deadline();
        loop {
            match self.shared.commits.commit_and_wait(consumer, &self.shared.ownership.partitions(), Occasion::End) {
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
        for partition in self.shared.ownership.partitions() {
            partition.leave();
        }
        let committed = self.commit_at_last(&consumer).map_err(|failed| error::commit(&failed));
        for partition in self.shared.ownership.partitions() {
            partition.lose();
        }
        self.shared.commits.forget();
        // Closes the consumer, which leaves the group; the callback finds nothing left to wait for.
        drop(consumer);
        committed
    }
}

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use throughline_core::broker::{BatchPolicy, Received, Settle};
use throughline_core::{BrokerError, Settlement};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::client::{Client, Uncommitted};
use super::unit::{Held, Stage, Task, Unit, after};
use crate::consumer::{Partition, Shared};
use crate::{error, thread};

/// How long the messages of a transaction that could not be committed wait before they are handled again.
const RECOMMIT_PAUSE: Duration = Duration::from_millis(100);

/// The transactions of one subscription, one after the other, each with its unit: a message, or those of a batch.
pub(super) struct Units {
    pub(super) client: Client,
    shared: Arc<Shared>,
    batch: Option<BatchPolicy>,
    state: Mutex<State>,
    /// Who has it makes a call of the client; the next one waits, also where nobody waits for the first any more.
    turn: Arc<AsyncMutex<()>>,
    /// Told when a unit has ended.
    pub(super) ended: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Held>,
    unit: Option<Unit>,
    /// Whether a transaction has begun.
    is_open: bool,
    is_closed: bool,
    generation: u64,
    failed: Option<KafkaError>,
}

/// What the next message is waiting for.
pub(super) enum Step {
    Ready(Received),
    /// Nothing is here.
    Empty,
    /// The unit that is being handled.
    Unit,
    /// A time.
    Due(Instant),
    /// What an aborted handler has published is to be taken back.
    TakeBack,
}

impl Units {
    pub(super) fn new(client: Client, shared: Arc<Shared>) -> Self {
        let batch = shared.settings.batch;
        let (turn, ended) = (Arc::default(), Notify::new());
        Self { client, shared, batch, state: Mutex::default(), turn, ended }
    }

    pub(super) fn push(&self, received: Received) {
        self.lock().queue.push_back(Held::new(received));
    }

    /// Whether partitions came or went since the last call.
    pub(super) fn has_moved(&self) -> bool {
        let generation = self.shared.ownership.generation();
        std::mem::replace(&mut self.lock().generation, generation) != generation
    }

    /// Gives up the messages that wait and that another member gets.
    pub(super) fn drop_withdrawn(&self) {
        self.lock().queue.retain(|held| !held.is_withdrawn());
    }

    /// Hands out the next message, when it is its turn. `handle` makes what settles the messages of a unit.
    pub(super) fn step(&self, handle: impl FnOnce() -> Arc<dyn Settle>) -> Result<Step, BrokerError> {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(failed) = &state.failed {
            return Err(self.failure(failed));
        }
        let now = Instant::now();
        if let Some(unit) = &state.unit {
            if unit.stage == Stage::Running && unit.is_done() {
                return Ok(Step::TakeBack);
            }
            if !unit.takes_more(now) || state.queue.front().is_some_and(|next| next.is_alone) {
                return Ok(Step::Unit);
            }
        }
        if let Some(due) = state.queue.front().and_then(|next| next.due).filter(|due| *due > now) {
            return Ok(Step::Due(due));
        }
        let Some(held) = state.queue.pop_front() else { return Ok(Step::Empty) };
        let unit = state.unit.get_or_insert_with(|| {
            let until = self.batch.map(|policy| after(now, policy.max_wait));
            Unit::new(handle(), self.batch.map_or(1, |policy| policy.max_messages), until)
        });
        Ok(Step::Ready(unit.hand_out(held)))
    }

    /// Begins the transaction of the unit that is being handled, where it has not begun.
    pub(super) fn begin(&self) -> Result<(), Unopened> {
        let mut state = self.lock();
        if let Some(failed) = &state.failed {
            return Err(Unopened::Failed(failed.clone()));
        }
        if state.unit.is_none() {
            return Err(Unopened::NoUnit);
        }
        self.begin_in(&mut state).map_err(Unopened::Failed)
    }

    fn begin_in(&self, state: &mut State) -> KafkaResult<()> {
        if !state.is_open {
            self.client.begin()?;
            state.is_open = true;
        }
        Ok(())
    }

    /// Whether a message is not to be begun with: another member gets it, or nothing can be committed here any more.
    pub(super) fn is_withdrawn(&self, index: usize) -> bool {
        let state = self.lock();
        state.failed.is_some() || state.unit.as_ref().is_some_and(|unit| unit.is_withdrawn(index))
    }

    /// Notes the settlement of a message; what follows is to be [done](Self::perform).
    pub(super) fn settle(&self, index: usize, settlement: &Settlement) -> Task {
        let mut state = self.lock();
        let Some(unit) = &mut state.unit else { return Task::Nothing };
        let task = unit.settle(index, settlement);
        if task == Task::Nothing {
            self.end_unit_if_done(&mut state);
        } else {
            unit.stage = Stage::Ending;
        }
        task
    }

    /// Notes that nobody settles a message.
    pub(super) fn give_up(&self, index: usize) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(unit) = &mut state.unit else { return };
        unit.give_up(index);
        let is_left_open = unit.is_done() && unit.stage == Stage::Running;
        if is_left_open && !state.is_open {
            // Nothing to take back.
            unit.stage = Stage::TakenBack;
        }
        self.end_unit_if_done(state);
        if is_left_open {
            self.ended.notify_one();
        }
    }

    /// Runs what blocks, after what was begun before. It goes on when nobody waits for it any more.
    pub(super) async fn perform<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let units = Arc::clone(self);
        let work = move || {
            let result = work(&units);
            drop(turn);
            result
        };
        thread::run("kafka transaction", work).await
    }

    /// Takes back what was published and, where all its messages are done, ends the unit. Blocks.
    pub(super) fn take_back(&self) -> Result<(), BrokerError> {
        let result = self.abort();
        let mut state = self.lock();
        if let Some(unit) = &mut state.unit {
            unit.stage = Stage::TakenBack;
        }
        self.end_unit_if_done(&mut state);
        result
    }

    /// Takes back what was published. Blocks.
    pub(super) fn abort(&self) -> Result<(), BrokerError> {
        if !self.lock().is_open {
            return Ok(());
        }
        let result = self.client.abort();
        let mut state = self.lock();
        state.is_open = false;
        result.map_err(|failed| self.end(&mut state, failed))
    }

    /// Commits what was published, and the offsets, and ends the unit. Blocks.
    pub(super) fn commit(&self) -> Result<(), BrokerError> {
        let result = self.try_commit();
        let mut state = self.lock();
        let Some(mut unit) = state.unit.take() else { return result };
        match &result {
            Ok(()) => unit.note_committed(),
            Err(failed) => {
                warn!(error = %failed, "a transaction was not committed; its messages are handled again");
                unit.fail(RECOMMIT_PAUSE);
                self.requeue(&mut state, unit);
            }
        }
        self.ended.notify_one();
        result
    }

    fn try_commit(&self) -> Result<(), BrokerError> {
        let places = {
            let mut state = self.lock();
            if let Some(failed) = &state.failed {
                return Err(self.failure(failed));
            }
            let places = state.unit.as_ref().map(Unit::places).unwrap_or_default();
            let begun = self.begin_in(&mut state);
            begun.map_err(|failed| self.end(&mut state, failed))?;
            places
        };
        match self.commit_places(&places) {
            Ok(()) => {
                self.lock().is_open = false;
                Ok(())
            }
            Err(NotCommitted::Ended(failed)) => Err(self.end(&mut self.lock(), failed)),
            // Where it cannot be aborted, that is worse than what was before.
            Err(NotCommitted::Again(failed)) => self.abort().and(Err(failed)),
        }
    }

    fn commit_places(&self, places: &[(Arc<Partition>, i64)]) -> Result<(), NotCommitted> {
        let Some(first) = places.first() else { return Err(NotCommitted::Again(error::taken_back())) };
        let again = |failed: KafkaError| NotCommitted::Again(error::commit(&failed));
        let lost = |(partition, _): &(Arc<Partition>, i64)| {
            NotCommitted::Again(error::partition_lost(&partition.topic, partition.number))
        };
        let mut offsets = TopicPartitionList::with_capacity(places.len());
        for (partition, position) in places {
            let added = offsets.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*position));
            added.map_err(again)?;
        }
        let Some(group) = self.shared.group_metadata() else { return Err(lost(first)) };
        // After the group was asked: a partition that goes from here on goes with a later generation, which the broker tells apart.
        if let Some(gone) = places.iter().find(|(partition, _)| partition.is_lost()) {
            return Err(lost(gone));
        }
        self.client.commit(&offsets, &group).map_err(|failed| match failed {
            Uncommitted::Abort(failed) => again(failed),
            Uncommitted::End(failed) => NotCommitted::Ended(failed),
        })
    }

    /// Hands nothing out any more and gives up what waits.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.queue.clear();
    }

    fn end_unit_if_done(&self, state: &mut State) {
        let is_over = |unit: &mut Unit| unit.stage == Stage::TakenBack && unit.is_done();
        if let Some(unit) = state.unit.take_if(is_over) {
            debug!("a transaction was aborted; its messages are handled again");
            self.requeue(state, unit);
            self.ended.notify_one();
        }
    }

    /// Puts the messages of a unit that was taken back before all others.
    fn requeue(&self, state: &mut State, unit: Unit) {
        if state.is_closed {
            return;
        }
        let waits_elsewhere = self.shared.settings.retry.is_some();
        for held in unit.again(Instant::now(), waits_elsewhere).into_iter().rev() {
            state.queue.push_front(held);
        }
    }

    /// Notes that the client can do nothing more; the subscription ends with it.
    fn end(&self, state: &mut State, failed: KafkaError) -> BrokerError {
        let error = self.failure(&failed);
        state.failed.get_or_insert(failed);
        self.ended.notify_one();
        error
    }

    pub(super) fn failure(&self, failed: &KafkaError) -> BrokerError {
        error::transaction(&self.client.id, failed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says why nothing can be published.
pub(super) enum Unopened {
    Failed(KafkaError),
    NoUnit,
}

enum NotCommitted {
    Again(BrokerError),
    Ended(KafkaError),
}

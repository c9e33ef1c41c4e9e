use std::sync::{Arc, OnceLock, Weak};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaResult;

use super::commit;

/// The consumer as others than the poll thread know it: a member of its group. The thread has the consumer; it alone closes it.
#[derive(Default)]
pub(super) struct Member(OnceLock<Weak<dyn Commit>>);

/// What a consumer does for them, whatever hears its callbacks.
pub(super) trait Commit: Send + Sync {
    /// Sends offsets to the broker, as [`commit::start`].
    fn start(&self, offsets: &TopicPartitionList) -> KafkaResult<()>;

    fn metadata(&self) -> Option<ConsumerGroupMetadata>;
}

impl Member {
    pub(super) fn set<C: ConsumerContext + 'static>(&self, consumer: &Arc<BaseConsumer<C>>) {
        let consumer: Weak<BaseConsumer<C>> = Arc::downgrade(consumer);
        // Set once, by the poll thread.
        let _ = self.0.set(consumer);
    }

    /// Returns as what this member commits offsets in a transaction; `None` when it is none any more. Blocks shortly.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer()?.metadata()
    }

    /// Returns the consumer, unless it is closed. Whoever has it last closes it, and with it runs its callbacks.
    pub(super) fn consumer(&self) -> Option<Arc<dyn Commit>> {
        self.0.get().and_then(Weak::upgrade)
    }
}

impl<C: ConsumerContext> Commit for BaseConsumer<C> {
    fn start(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        commit::start(self, offsets)
    }

    fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let metadata = self.group_metadata()?;
        // A member that was thrown out has no name until it joins again, and the broker would take offsets of a nobody.
        (!self.assignment_lost()).then_some(metadata)
    }
}

use std::sync::Arc;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use tracing::{error, info, warn};

use super::shared::Shared;
use super::start;

/// Hears from the client, on the poll thread: which partitions come and go, and what became of commits.
pub(crate) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) client: crate::context::Context,
}

impl Context {
    /// Takes partitions over, from where they are to be read.
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let starts = start::positions(consumer, &self.shared, partitions).unwrap_or_else(|failed| {
            warn!(error = %failed, "where to begin is not known; the client decides by `auto.offset.reset`");
            start::keys(partitions).into_iter().map(|(topic, number)| (topic, number, None)).collect()
        });
        info!(partitions = starts.len(), "partitions were assigned");
        // Owned first: messages may come as soon as the client knows.
        self.shared.own(starts);
        let assigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
            _ => consumer.assign(partitions),
        };
        note(assigned, "partitions could not be assigned");
        self.shared.commit_starts(consumer);
    }

    /// Gives partitions up: handlers that run may finish, what is settled is committed, and from then on nothing of them counts.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let gone = self.shared.disown(partitions);
        if consumer.assignment_lost() {
            // Another member has them already: a commit would be refused.
            warn!(partitions = gone.len(), "partitions were lost; what was not committed comes again");
        } else {
            let deadline = Instant::now() + self.shared.settings.rebalance_timeout;
            let late = gone.iter().filter(|partition| !partition.wait_until_idle(deadline)).count();
            if late > 0 {
                warn!(partitions = late, "handlers outlast the rebalance; their messages come again elsewhere");
            }
            // A failure is reported there.
            let _ = self.shared.commit_and_wait(consumer, &gone);
        }
        for partition in &gone {
            partition.lose();
        }
        info!(partitions = gone.len(), "partitions were given up");
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            _ => consumer.unassign(),
        };
        note(unassigned, "partitions could not be given up");
    }
}

fn note(result: KafkaResult<()>, what: &str) {
    if let Err(failed) = result {
        error!(error = %failed, "{what}");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => self.revoke(consumer, partitions),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.shared.note_commit(&result, offsets);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.client.log(level, facility, line);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.client.stats_raw(statistics);
    }

    fn error(&self, failed: KafkaError, reason: &str) {
        self.client.error(failed, reason);
    }
}

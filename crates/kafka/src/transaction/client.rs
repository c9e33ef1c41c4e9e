use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, TopicPartitionList};
use throughline_core::BrokerError;

use crate::error;
use crate::producer::{Producer, Reports};

/// How long one call of the client may take. One that takes longer goes on when it is called again.
const CALL_WAIT: Duration = Duration::from_secs(2);

/// How long a call is made again while the brokers cannot answer it.
const LIMIT: Duration = Duration::from_secs(60);

/// How long to wait before a call is made again.
const PAUSE: Duration = Duration::from_millis(50);

/// The client that makes the transactions of one subscription. All calls but [`begin`](Self::begin) block.
pub(super) struct Client {
    pub(super) id: Arc<str>,
    pub(super) producer: Arc<Producer>,
    /// Nobody waits for the brokers any more.
    is_given_up: Arc<AtomicBool>,
}

/// Says why a transaction was not committed.
pub(super) enum Uncommitted {
    /// It can be aborted, and its messages be handled again.
    Abort(KafkaError),
    /// Only another client can find out or go on.
    End(KafkaError),
}

impl Client {
    /// Makes the client, and ends what an earlier one with the same id has left open. Fails soon when it is given up.
    pub(super) fn start(
        config: &ClientConfig,
        id: Arc<str>,
        is_given_up: Arc<AtomicBool>,
    ) -> Result<Self, BrokerError> {
        let producer = Arc::new(Producer::create(config)?);
        let client = Self { id, producer, is_given_up };
        match client.until_answered(|producer| producer.init_transactions(CALL_WAIT)) {
            Ok(()) => Ok(client),
            Err(failed) => Err(error::transaction(&client.id, &failed)),
        }
    }

    pub(super) fn begin(&self) -> KafkaResult<()> {
        self.producer.client()?.begin_transaction()
    }

    /// Commits what was published together with the offsets.
    pub(super) fn commit(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), Uncommitted> {
        self.until_answered(|producer| producer.send_offsets_to_transaction(offsets, group, CALL_WAIT))
            .map_err(|failed| if is_fatal(&failed) { Uncommitted::End(failed) } else { Uncommitted::Abort(failed) })?;
        self.until_answered(|producer| producer.commit_transaction(CALL_WAIT)).map_err(|failed| {
            // Whether it was committed is not known, and a commit that began cannot be aborted.
            let is_open = is_fatal(&failed) || is_unanswered(&failed);
            if is_open { Uncommitted::End(failed) } else { Uncommitted::Abort(failed) }
        })
    }

    /// Takes back what was published. Where it cannot, nothing more can be done with this client.
    pub(super) fn abort(&self) -> KafkaResult<()> {
        self.until_answered(|producer| producer.abort_transaction(CALL_WAIT))
    }

    /// Lets calls that the brokers do not answer fail soon.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Makes a call until it is answered, or for too long.
    fn until_answered(&self, mut call: impl FnMut(&ThreadedProducer<Reports>) -> KafkaResult<()>) -> KafkaResult<()> {
        let client = self.producer.client()?;
        let deadline = Instant::now() + LIMIT;
        loop {
            match call(client) {
                Err(failed)
                    if is_unanswered(&failed)
                        && Instant::now() < deadline
                        && !self.is_given_up.load(Ordering::Relaxed) =>
                {
                    thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }
}

fn is_fatal(failed: &KafkaError) -> bool {
    matches!(failed, KafkaError::Transaction(failed) if failed.is_fatal())
}

/// Tells whether a call may be made again as it was.
fn is_unanswered(failed: &KafkaError) -> bool {
    match failed {
        KafkaError::Transaction(failed) => failed.is_retriable() && !failed.is_fatal(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

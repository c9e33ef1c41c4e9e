use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use throughline_core::broker::HeaderNames;
use throughline_core::{BrokerError, Envelope, PublishError};
use tokio::sync::OnceCell;
use tracing::warn;

use crate::outage::Repeats;
use crate::outgoing::{record, report_of};
use crate::producer::{Producer, Report};
use crate::{config, error, thread};

/// Sends a message in a request of its own, after one with others was refused: that answer says nothing about any of them.
///
/// Its producer is made when it is needed first; a connection whose topics take what the client sends at once has none.
pub(crate) struct Alone {
    /// What the user gave for all clients.
    config: ClientConfig,
    names: HeaderNames,
    producer: OnceCell<Producer>,
    /// Topics of which the log has said it.
    told: Repeats<String>,
}

impl Alone {
    pub(crate) fn new(config: &ClientConfig, names: HeaderNames) -> Self {
        Self { config: config.clone(), names, producer: OnceCell::new(), told: Repeats::default() }
    }

    /// Puts a message that was refused with others into the queue; its report is the answer to it alone.
    pub(crate) async fn start(
        &self,
        envelope: &Envelope,
        refused: RDKafkaErrorCode,
    ) -> Result<Arc<Report>, PublishError> {
        let topic = envelope.destination().name();
        let made = self.producer.get_or_try_init(|| create(self.config.clone())).await;
        let producer = made.map_err(|failed| {
            // Not what the broker said: that was not of this message.
            let refused = error::publish(&KafkaError::MessageProduction(refused), topic);
            error::of_request(refused).with_source(failed)
        })?;
        let report = report_of(envelope);
        let sent = producer.send_when_room(Box::new(record(envelope, &report, &self.names)?)).await;
        sent.map(|()| report).map_err(|failed| error::publish(&failed, topic))
    }

    /// Says that a topic takes a message that it refused with others.
    pub(crate) fn note_taken(&self, topic: &str, refused: RDKafkaErrorCode) {
        if let Some(left_out) = self.told.admit(topic.to_owned()) {
            let refused = error::error_type(refused);
            warn!(
                topic,
                refused,
                left_out,
                "a request was refused, and its messages are published one by one; if this comes again, set `batch.size` to what the \
                 topic takes: it costs requests, and the order among them"
            );
        }
    }

    /// Waits until all messages are reported, as [`Producer::flush`] does. Blocks.
    pub(crate) fn flush(&self, limit: Duration) -> Result<(), (KafkaError, usize)> {
        self.producer.get().map_or(Ok(()), |producer| producer.flush(limit))
    }
}

async fn create(given: ClientConfig) -> Result<Producer, BrokerError> {
    let make = move || {
        let mut config = config::producer(&given)?;
        config.set("batch.num.messages", "1");
        Producer::create(&config)
    };
    thread::run("kafka producer", make).await
}

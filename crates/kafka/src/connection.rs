use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use throughline_core::BrokerError;
use throughline_core::broker::{HeaderNames, Routes};
use throughline_core::message::System;

use crate::alone::Alone;
use crate::producer::Producer;
use crate::transaction::TransactionalIds;
use crate::{config, error, semconv};

/// How long [`Kafka::connect`](crate::Kafka::connect) waits for the first broker that answers.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How often it looks whether the broker refused the credentials.
const REFUSED_CHECK: Duration = Duration::from_millis(100);

/// What publishers and subscribers of one connection share.
#[derive(Clone)]
pub(crate) struct Connection {
    /// What the user gave for all clients, checked; how much they log is set.
    pub(crate) config: ClientConfig,
    pub(crate) system: Arc<System>,
    /// Whether keys may be attributes.
    // ATTR-C-23.
    pub(crate) records_keys: bool,
    pub(crate) names: HeaderNames,
    pub(crate) producer: Arc<Producer>,
    /// What was refused with others goes there; `None` in transactions, which are of one producer.
    pub(crate) alone: Option<Arc<Alone>>,
    pub(crate) transactional_ids: TransactionalIds,
    pub(crate) routes: Routes,
}

impl Connection {
    /// Makes the producer and waits for the first broker that answers. Blocks.
    pub(crate) fn open(mut config: ClientConfig) -> Result<Self, BrokerError> {
        config::check(&config)?;
        config.set_log_level(config::log_level(&config));
        let producer = Producer::create(&config::producer(&config)?)?;
        let servers = servers(&config);
        let cluster_id = reach(&producer, servers)?;
        let server = semconv::server(servers);
        let server = server.as_ref().map(|(host, port)| (host.as_str(), *port));
        Ok(Self {
            system: semconv::system(server, config.get("client.id"), cluster_id.as_deref()),
            records_keys: true,
            names: HeaderNames::default(),
            producer: Arc::new(producer),
            alone: Some(Arc::new(Alone::new(&config, HeaderNames::default()))),
            transactional_ids: TransactionalIds::default(),
            routes: Routes::default(),
            config,
        })
    }

    /// Waits until all that was published is confirmed, until the deadline. Blocks.
    pub(crate) fn flush(&self, deadline: Instant) -> Result<(), BrokerError> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let unconfirmed = |(failed, messages): (KafkaError, usize)| error::not_flushed(&failed, messages);
        // In this order: what the first one is refused goes to the second one.
        let flushed = self.producer.flush(left()).map_err(unconfirmed);
        let alone = self.alone.as_ref().map_or(Ok(()), |alone| alone.flush(left()));
        flushed.and(alone.map_err(unconfirmed))
    }
}

/// Returns the servers the user named.
pub(crate) fn servers(config: &ClientConfig) -> &str {
    config.get("bootstrap.servers").or(config.get("metadata.broker.list")).unwrap_or_default()
}

/// Waits for the first broker that answers and returns the id of its cluster, where it has one. Blocks.
fn reach(producer: &Producer, servers: &str) -> Result<Option<String>, BrokerError> {
    let failed = |failed: KafkaError| error::connect(&failed, servers);
    let client = producer.client().map_err(failed)?.client();
    let deadline = Instant::now() + CONNECT_WAIT;
    loop {
        let asked = Instant::now();
        if let Some(id) = client.fetch_cluster_id(REFUSED_CHECK) {
            return Ok(Some(id));
        }
        if let Some((refused, reason)) = client.context().context.take_refused() {
            return Err(error::refused(&refused, &reason, servers));
        }
        // Without waiting, it says that there is an answer without an id, as brokers before 0.10.1 give it.
        if asked.elapsed() < REFUSED_CHECK || Instant::now() >= deadline {
            return client.fetch_metadata(None, REFUSED_CHECK).map(|_| None).map_err(failed);
        }
    }
}

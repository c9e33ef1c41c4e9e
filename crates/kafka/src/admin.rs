//! What the brokers are asked, and what is created there, when an app starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use throughline_core::BrokerError;
use throughline_core::broker::{Existence, Outbound};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::connection::Connection;
use crate::context::Context;
use crate::subscription::{NewTopic, Topic};
use crate::{config, error, lookup, thread};

/// How long one question may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long a topic that was created may take until the brokers know it, and how often that is looked at.
const KNOWN_WAIT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(50));

/// The property of a broker that says whether it creates topics with their first message.
const CREATES_TOPICS: &str = "auto.create.topics.enable";

/// Creates the topics of a subscription that are missing, where it declares them.
pub(crate) async fn declare(connection: &Connection, topic: &Topic) -> Result<(), BrokerError> {
    let Some(new) = topic.declared.clone() else { return Ok(()) };
    topic.check_names()?;
    if topic.is_pattern {
        return Err(BrokerError::configuration(
            "a pattern names no topic that could be created: subscribe to topics by name, or leave out `declare`",
        ));
    }
    let names = topic.all_names()?;
    run(connection, move |admin| names.iter().try_for_each(|name| admin.declare(name, &new))).await
}

/// Tells whether the topics exist to which an app will publish, and creates those that their subscription declares.
pub(crate) async fn check(connection: &Connection, outbound: &[Outbound<'_>]) -> Vec<Result<Existence, BrokerError>> {
    let asked: Vec<(String, Option<Arc<NewTopic>>)> = outbound
        .iter()
        .map(|one| {
            let topic = one.subscription.native::<Topic>();
            (one.destination.name().to_owned(), topic.and_then(|topic| topic.declared.clone()))
        })
        .collect();
    let checked = run(connection, move |admin| {
        // Of several subscriptions with one place for dead letters it is enough that one declares it.
        let declared = |name: &str| asked.iter().filter(|(of, _)| of == name).find_map(|(_, new)| new.as_deref());
        Ok(asked.iter().map(|(name, _)| admin.check(name, declared(name))).collect::<Vec<_>>())
    });
    checked.await.unwrap_or_else(|failed| {
        let unasked = || BrokerError::new(failed.kind(), failed.error_type().to_owned(), failed.to_string());
        outbound.iter().map(|_| Ok(Existence::Unknown(unasked()))).collect()
    })
}

/// Runs what blocks, with a client of its own for so long: those of the connection would create a topic that they ask for, where the
/// brokers do.
async fn run<T: Send + 'static>(
    connection: &Connection,
    work: impl FnOnce(&Admin) -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let mut config = config::producer(&connection.config)?;
    config.set("allow.auto.create.topics", "false");
    let runtime = Handle::current();
    thread::run("kafka admin", move || {
        let client = config.create_with_context(Context::default()).map_err(|failed| config::unusable(&failed))?;
        work(&Admin { client, runtime })
    })
    .await
}

struct Admin {
    client: AdminClient<Context>,
    runtime: Handle,
}

impl Admin {
    fn check(&self, name: &str, declared: Option<&NewTopic>) -> Result<Existence, BrokerError> {
        match (self.partitions(name), declared) {
            (Err(failed), _) => Ok(Existence::Unknown(error::not_looked_up(name, &failed))),
            (Ok(None), None) => self.judge_missing(name),
            (Ok(Some(_)), None) => Ok(Existence::Usable),
            (Ok(found), Some(new)) => self.ensure(name, new, found).map(|()| Existence::Usable),
        }
    }

    fn declare(&self, name: &str, new: &NewTopic) -> Result<(), BrokerError> {
        let found = self.partitions(name).map_err(|failed| error::not_looked_up(name, &failed))?;
        self.ensure(name, new, found)
    }

    /// Creates a topic that has no partitions; one that has some is left as it is.
    fn ensure(&self, name: &str, new: &NewTopic, found: Option<usize>) -> Result<(), BrokerError> {
        match found {
            None => self.create(name, new),
            Some(found) => {
                if found != new.partition_count() {
                    warn!(
                        topic = name,
                        partitions = found,
                        declared = new.partition_count(),
                        "a topic exists with another number of partitions than is declared, and is left as it is"
                    );
                }
                Ok(())
            }
        }
    }

    fn create(&self, name: &str, new: &NewTopic) -> Result<(), BrokerError> {
        let options = options().operation_timeout(Some(ANSWER_WAIT));
        let created = self.runtime.block_on(self.client.create_topics([&new.of(name)], &options));
        let refused = match created.map(|results| results.into_iter().find_map(Result::err)) {
            Ok(None) => None,
            // Somebody else was faster.
            Ok(Some((_, RDKafkaErrorCode::TopicAlreadyExists))) => None,
            Ok(Some((_, code))) => Some(KafkaError::AdminOp(code)),
            Err(failed) => Some(failed),
        };
        if let Some(failed) = refused {
            return Err(error::not_created(name, &failed));
        }
        info!(topic = name, partitions = new.partition_count(), "a topic was created, as the subscription declares it");
        // A broker that does not know it yet would say that it does not exist.
        let since = Instant::now();
        while !matches!(self.partitions(name), Ok(Some(_))) && since.elapsed() < KNOWN_WAIT.0 {
            std::thread::sleep(KNOWN_WAIT.1);
        }
        Ok(())
    }

    /// A topic that is missing is no fault where the brokers create it with its first message.
    fn judge_missing(&self, name: &str) -> Result<Existence, BrokerError> {
        match self.creates_topics() {
            Ok(true) => {
                info!(topic = name, "a topic does not exist yet: the brokers create it with its first message");
                Ok(Existence::Usable)
            }
            Ok(false) => Err(error::missing_destination(name)),
            Err(failed) => Ok(Existence::Unknown(error::perhaps_missing(name, &failed))),
        }
    }

    fn creates_topics(&self) -> KafkaResult<bool> {
        let broker = self.client.inner().fetch_metadata(None, ANSWER_WAIT)?.orig_broker_id();
        let asked = [ResourceSpecifier::Broker(broker)];
        let answers = self.runtime.block_on(self.client.describe_configs(&asked, &options()))?;
        let unsaid = || KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature);
        let found = answers.into_iter().next().ok_or_else(unsaid)?.map_err(KafkaError::AdminOp)?;
        let value = found.get(CREATES_TOPICS).and_then(|entry| entry.value.as_deref());
        value.map(|value| value == "true").ok_or_else(unsaid)
    }

    fn partitions(&self, name: &str) -> KafkaResult<Option<usize>> {
        lookup::partitions(self.client.inner(), name, ANSWER_WAIT)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WAIT))
}

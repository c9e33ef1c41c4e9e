//! Kafka: a topic for each kind of message, made for the run, and a group for each subscription.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use throughline::kafka::{Kafka, StartPosition, Topic};
use tokio::time::{Instant, sleep};

use crate::services::Subscriptions;

const TOPICS: [&str; 4] = ["orders.placed", "orders.dead", "stock.reserved", "invoices.created"];

const SERVICES: [&str; 4] = ["stock", "billing", "shop", "shop-dead"];

/// How long the server may take for one answer, and for a topic to have a leader.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one run has on the server: the topics it created, and groups that no other run has.
pub struct Run {
    admin: Arc<AdminClient<DefaultClientContext>>,
    name: String,
    created: Vec<String>,
}

impl Run {
    /// Creates the topics that are not there; returns when all of them can be written and read.
    ///
    /// What is in a topic already, from a run that was killed or from somebody else, is not part of the story and is not read.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer, or refuses.
    pub async fn prepare(servers: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", servers).create()?;
        // As many replicas as the server makes by default.
        let topics = TOPICS.map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(-1)));
        let mut created = Vec::new();
        for topic in admin.create_topics(&topics, &options()).await? {
            match topic {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(format!("the topic `{name}` was not created: {code}").into()),
            }
        }
        // Short, and another one for weeks: a server forgets an idle group after one.
        let millis = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() % (1 << 32);
        let run = Self { admin: Arc::new(admin), name: format!("{millis:08x}"), created };
        run.wait_for_leaders().await?;
        Ok(run)
    }

    /// Returns what the services subscribe to.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        let topic = |name, service| Topic::new(name).group(self.group(service)).start(StartPosition::Latest);
        let [stock, billing, shop, shop_dead] = SERVICES;
        Subscriptions {
            placed: topic("orders.placed", stock).into(),
            reserved: topic("stock.reserved", billing).batch(2, Duration::from_secs(10)).into(),
            invoiced: topic("invoices.created", shop).into(),
            dead: topic("orders.dead", shop_dead).into(),
        }
    }

    /// Removes the topics that this run created, and its groups.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer, or refuses.
    pub async fn clean_up(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let topics: Vec<&str> = self.created.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            for topic in self.admin.delete_topics(&topics, &options()).await? {
                topic.map_err(|(name, code)| format!("the topic `{name}` was not removed: {code}"))?;
            }
        }
        let groups = SERVICES.map(|service| self.group(service));
        // After an interruption a group may still have its member. The server forgets it later, and nobody uses it again.
        let _ = self.admin.delete_groups(&groups.each_ref().map(String::as_str), &options()).await?;
        Ok(())
    }

    fn group(&self, service: &str) -> String {
        format!("{service}-{}", self.name)
    }

    async fn wait_for_leaders(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let admin = Arc::clone(&self.admin);
            if tokio::task::spawn_blocking(move || has_leaders(&admin)).await?? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("not all of the topics {TOPICS:?} have a leader after {PATIENCE:?}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Connects one service.
///
/// # Errors
///
/// Fails when no server answers at the address.
pub async fn connect(servers: &str) -> Result<Kafka, Box<dyn Error + Send + Sync>> {
    Ok(Kafka::connect(servers).await?)
}

/// Asks for all topics at once: one that the server does not know is not among them. Blocks.
fn has_leaders(admin: &AdminClient<DefaultClientContext>) -> Result<bool, KafkaError> {
    let metadata = admin.inner().fetch_metadata(None, PATIENCE)?;
    Ok(TOPICS.iter().all(|name| {
        metadata.topics().iter().any(|topic| {
            topic.name() == *name
                && !topic.partitions().is_empty()
                && topic.partitions().iter().all(|partition| partition.leader() >= 0)
        })
    }))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

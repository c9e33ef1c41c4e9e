//! FastStream on Kafka: with aiokafka and with confluent-kafka.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use throughline_core::broker::HeaderNames;
use throughline_kafka::{Kafka, Topic};
use tokio::process::Command;

use crate::baggage::Reads;
use crate::handlers::{BATCH, BATCH_WAIT, Subscriptions};
use crate::peer::{named, script};
use crate::world::{Services, World};
use crate::{baggage, cases};

const OURS: [&str; 3] = ["rust.batch", "rust.end", "rust.relay"];
const THEIRS: [&str; 3] = ["batch", "end", "relay"];

/// How long our messages wait for others: those of a batch are to be stored together, or a consumer gets them one by one.
const TOGETHER_MILLIS: &str = "200";

async fn services(client: &str) -> Services {
    let mut peer = Command::new(named("THROUGHLINE_FASTSTREAM_PYTHON"));
    peer.arg(script("faststream_kafka.py"));
    start("python", peer, &[client]).await
}

/// Starts a service in this language, with the arguments of all peers and more, and ours.
pub(crate) async fn start(language: &'static str, mut peer: Command, more: &[&str]) -> Services {
    let (world, url) = (World::new().await, named("THROUGHLINE_KAFKA_URL"));
    create(&url, &world, language).await;
    peer.args([&url, &world.endpoint(), world.run()]).args(more);
    let topic = |name| Topic::new(world.name(name)).group(world.name(name));
    let from = Subscriptions {
        relay: topic("rust.relay").into(),
        end: topic("rust.end").into(),
        batch: Some(topic("rust.batch").batch(BATCH, BATCH_WAIT).into()),
        answer: None,
    };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url.as_str()).set("linger.ms", TOGETHER_MILLIS);
    let mut kafka = Kafka::connect_with(config).await.expect("Kafka");
    if language == "python" {
        kafka = kafka.with_header_names(HeaderNames::faststream()).expect("its names");
    }
    world.start(language, peer, kafka, from).await
}

/// Creates the topics of both sides: no server here makes one by itself.
async fn create(bootstrap: &str, world: &World, language: &str) {
    let theirs = THEIRS.map(|place| world.name(&format!("{language}.{place}")));
    let names = [OURS.map(|place| world.name(place)), theirs].concat();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
    for created in admin.create_topics(&topics, &AdminOptions::new()).await.expect("an answer") {
        created.expect("a topic");
    }
}

#[tokio::test]
#[ignore = "needs Kafka, Python and a Collector: cargo xtask interop"]
async fn aiokafka_a_message_goes_there_and_back_in_one_trace() {
    let mut services = services("aiokafka").await;
    cases::there_and_back(&mut services).await;
    services.made("kafka-aiokafka-messages.txt").await;
}

#[tokio::test]
#[ignore = "needs Kafka, Python and a Collector: cargo xtask interop"]
async fn aiokafka_each_message_of_a_batch_stays_in_its_trace() {
    let mut services = services("aiokafka").await;
    cases::our_batch(&mut services, "publish_batch").await;
    cases::our_messages(&mut services).await;
    cases::their_batch(&mut services).await;
    cases::their_batch_with_ids(&mut services).await;
    services.made("kafka-aiokafka-batch.txt").await;
}

#[tokio::test]
#[ignore = "needs Kafka, Python and a Collector: cargo xtask interop"]
async fn aiokafka_baggage_is_equal_on_both_ends() {
    baggage::is_equal_on_both_ends(services("aiokafka").await, Reads::All).await;
}

#[tokio::test]
#[ignore = "needs Kafka, Python and a Collector: cargo xtask interop"]
async fn confluent_a_message_goes_there_and_back_in_one_trace() {
    let mut services = services("confluent").await;
    cases::there_and_back(&mut services).await;
    services.made("kafka-confluent-messages.txt").await;
}

#[tokio::test]
#[ignore = "needs Kafka, Python and a Collector: cargo xtask interop"]
async fn confluent_each_message_of_a_batch_stays_in_its_trace() {
    let mut services = services("confluent").await;
    cases::our_batch(&mut services, "publish_batch").await;
    cases::our_messages(&mut services).await;
    cases::their_batch(&mut services).await;
    cases::their_batch_with_ids(&mut services).await;
    services.made("kafka-confluent-batch.txt").await;
}

#[tokio::test]
#[ignore = "needs Kafka, Python and a Collector: cargo xtask interop"]
async fn confluent_baggage_is_equal_on_both_ends() {
    baggage::is_equal_on_both_ends(services("confluent").await, Reads::All).await;
}

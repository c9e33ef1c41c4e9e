//! Services that are not FastStream's: another language on each broker.

use std::path::PathBuf;

use tokio::process::Command;

use crate::baggage::{self, Reads};
use crate::peer::{named, script};
use crate::world::Services;
use crate::{cases, kafka, nats, rabbit};

async fn amqplib() -> Services {
    let mut peer = Command::new("node");
    peer.env("NODE_PATH", named("THROUGHLINE_AMQPLIB_MODULES")).arg(script("node/amqplib_rabbit.js"));
    rabbit::start("node", peer).await
}

async fn franz() -> Services {
    kafka::start("go", Command::new(named("THROUGHLINE_FRANZ")), &[]).await
}

async fn agent() -> Services {
    nats::start("java", |world| {
        let jars = named("THROUGHLINE_AGENT_JARS");
        let mut peer = Command::new("java");
        // It ends before better code would pay.
        peer.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        peer.arg(format!("-javaagent:{}", jar(&jars, "opentelemetry-javaagent-").display()));
        peer.args(["-cp", &format!("{jars}/*")]).arg(script("AgentNats.java"));
        peer.args([&named("THROUGHLINE_NATS_URL"), world.run()]);
        peer.env("OTEL_EXPORTER_OTLP_ENDPOINT", world.endpoint()).env("OTEL_SERVICE_NAME", "java");
        peer.env("OTEL_METRICS_EXPORTER", "none").env("OTEL_LOGS_EXPORTER", "none");
        peer
    })
    .await
}

/// Returns the jar whose name begins so, whatever its version.
fn jar(folder: &str, begin: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).expect("the folder with the jars").filter_map(Result::ok);
    let found = files.into_iter().find(|file| file.file_name().to_string_lossy().starts_with(begin));
    found.unwrap_or_else(|| panic!("there is no {begin} in {folder}")).path()
}

#[tokio::test]
#[ignore = "needs RabbitMQ, Node and a Collector: cargo xtask interop"]
async fn amqplib_on_rabbit_keeps_trace_and_baggage() {
    let mut services = amqplib().await;
    cases::there_and_back(&mut services).await;
    cases::our_messages(&mut services).await;
    services.made("rabbit-node.txt").await;
}

#[tokio::test]
#[ignore = "needs Kafka, Go and a Collector: cargo xtask interop"]
async fn franz_go_on_kafka_keeps_trace_and_baggage() {
    let mut services = franz().await;
    cases::there_and_back(&mut services).await;
    cases::our_messages(&mut services).await;
    services.made("kafka-go.txt").await;
}

#[tokio::test]
#[ignore = "needs NATS, Java and a Collector: cargo xtask interop"]
async fn the_java_agent_on_nats_keeps_trace_and_baggage() {
    let mut services = agent().await;
    cases::there_and_back(&mut services).await;
    cases::requests(&mut services).await;
    services.made("nats-java.txt").await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ, Node and a Collector: cargo xtask interop"]
async fn baggage_is_equal_on_both_ends_with_node() {
    baggage::is_equal_on_both_ends(amqplib().await, Reads::AllButEmpty).await;
}

#[tokio::test]
#[ignore = "needs Kafka, Go and a Collector: cargo xtask interop"]
async fn baggage_is_equal_on_both_ends_with_go() {
    baggage::is_equal_on_both_ends(franz().await, Reads::All).await;
}

#[tokio::test]
#[ignore = "needs NATS, Java and a Collector: cargo xtask interop"]
async fn baggage_is_equal_on_both_ends_with_java() {
    baggage::is_equal_on_both_ends(agent().await, Reads::AllButEmpty).await;
}

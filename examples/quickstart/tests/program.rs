//! What the program says, and how it ends.

use std::process::{Command, Output};

/// What the pictures show on every broker.
const LINES: [&str; 8] = [
    "order 44: in the dead letter",
    "6 spans  3 services",
    "           │  │ attempt=2 retry.cause=quickstart::orders::NotReserved",
    "✗ quickstart::orders::NotReserved: no warehouse has a unicorn",
    "billing process stock.reserved",
    "baggage tenant=acme warehouse=north",
    "messaging.process.duration",
    "0 dropped, 0 never ended",
];

fn quickstart(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(arguments)
        .env_remove("OTEL_SDK_DISABLED")
        .env_remove("OTEL_TRACES_EXPORTER")
        .env_remove("OTEL_METRICS_EXPORTER")
        .env_remove("COLUMNS")
        .output()
}

#[test]
fn the_terminal_shows_the_traces_and_the_metrics() {
    shows_the_story(&quickstart(&[]).unwrap());
}

#[cfg(feature = "kafka")]
#[test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
fn the_terminal_shows_the_same_on_kafka() {
    let output = quickstart(&["--broker", "kafka"]).unwrap();
    shows_the_story(&output);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("stock   commit orders.placed"), "{said}");
}

#[cfg(feature = "rabbit")]
#[test]
#[ignore = "needs RabbitMQ: cargo xtask test --broker rabbit"]
fn the_terminal_shows_the_same_on_rabbit() {
    shows_the_story(&quickstart(&["--broker", "rabbit"]).unwrap());
}

fn shows_the_story(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in LINES {
        assert!(said.contains(line), "`{line}` is not in\n{said}");
    }
}

#[test]
fn an_unknown_argument_is_answered_with_the_usage() {
    let output = quickstart(&["--broker", "pigeon"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("`--broker pigeon` is not understood") && said.contains("usage:"), "{said}");
}

#[cfg(not(feature = "nats"))]
#[test]
fn a_program_without_nats_says_how_to_build_it_with_nats() {
    assert_names_the_command("nats", &quickstart(&["--broker", "nats"]).unwrap());
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_program_without_kafka_says_how_to_build_it_with_kafka() {
    assert_names_the_command("kafka", &quickstart(&["--broker", "kafka"]).unwrap());
}

#[cfg(not(feature = "rabbit"))]
#[test]
fn a_program_without_rabbit_says_how_to_build_it_with_rabbit() {
    assert_names_the_command("rabbit", &quickstart(&["--broker", "rabbit"]).unwrap());
}

#[cfg(not(all(feature = "kafka", feature = "nats", feature = "rabbit")))]
fn assert_names_the_command(broker: &str, output: &Output) {
    let command = format!("cargo run -p quickstart --features {broker} -- --broker {broker}");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().any(|line| line.trim() == command), "{said}");
}

#[cfg(feature = "nats")]
#[test]
fn a_nats_server_that_does_not_answer_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output = command.args(["--broker", "nats"]).env("THROUGHLINE_NATS_URL", "nats://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("THROUGHLINE_NATS_URL names a server that does not answer"), "{said}");
}

#[cfg(feature = "kafka")]
#[test]
fn a_kafka_server_that_does_not_answer_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output = command.args(["--broker", "kafka"]).env("THROUGHLINE_KAFKA_URL", "127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("THROUGHLINE_KAFKA_URL names a server that does not answer"), "{said}");
}

#[cfg(feature = "rabbit")]
#[test]
fn a_rabbit_server_that_does_not_answer_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output =
        command.args(["--broker", "rabbit"]).env("THROUGHLINE_RABBIT_URL", "amqp://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("THROUGHLINE_RABBIT_URL names a server that does not answer"), "{said}");
}

//! Messages of clients that are not ours: Java's `amqp-client` and Python's `pika`, see `Foreign.java` and `foreign.py`. The folder of
//! Java's jars is in `THROUGHLINE_RABBIT_JARS`, the Python program that has `pika` in `THROUGHLINE_RABBIT_PYTHON`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPType, AMQPValue, FieldTable};
use opentelemetry::trace::SpanKind;
use throughline_core::message::CreationContext;
use throughline_core::{App, Destination, Envelope, Handler, Publisher, Settlement, serve};
use throughline_rabbit::{Instrumentation, Queue};
use throughline_testing::Capture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{self, PATIENCE, Plain, unique};

/// The context that the script says all its messages come from.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A client that is not ours.
struct Client {
    name: &'static str,
    command: fn() -> Command,
    /// The types of headers that it reads and cannot write.
    unwritten: &'static [AMQPType],
}

const CLIENTS: [Client; 2] = [
    Client {
        name: "Java",
        command: java,
        unwritten: &[AMQPType::LongUInt, AMQPType::ShortShortUInt, AMQPType::ShortUInt],
    },
    Client { name: "Python", command: python, unwritten: &[] },
];

fn java() -> Command {
    let mut command = Command::new("java");
    // It ends before better code would pay.
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(named("THROUGHLINE_RABBIT_JARS").join("*")).arg(script("Foreign.java"));
    command
}

fn python() -> Command {
    let mut command = Command::new(named("THROUGHLINE_RABBIT_PYTHON"));
    command.arg(script("foreign.py"));
    command
}

fn named(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) if !path.is_empty() => path.into(),
        _ => panic!("{variable} is not set: run `cargo xtask test --broker rabbit`, which installs what it names"),
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rabbit").join(name)
}

/// Such a client, connected. It ends with the test.
struct Foreign {
    client: &'static Client,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Foreign {
    fn start(client: &'static Client) -> Self {
        let mut command = (client.command)();
        command.arg(server::url()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|failed| panic!("{} does not start: {failed}", client.name));
        let (stdin, stdout) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        Self { client, child, stdin, stdout: BufReader::new(stdout).lines() }
    }

    /// Has it do something, and returns what it says.
    async fn run(&mut self, words: &[&str]) -> String {
        // One that has ended says why.
        let _ = self.stdin.write_all(format!("{}\n", words.join("\t")).as_bytes()).await;
        match timeout(2 * PATIENCE, self.stdout.next_line()).await {
            Ok(Ok(Some(said))) => said,
            Ok(ended) => panic!("{} {words:?}: {ended:?}, {}", self.client.name, self.last_words().await),
            Err(_) => panic!("{} {words:?}: no answer in time", self.client.name),
        }
    }

    async fn last_words(&mut self) -> String {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("its messages");
        let _ = timeout(PATIENCE, stderr.read_to_string(&mut said)).await;
        said
    }
}

/// Queues: for the foreign client's messages, for what is forwarded to it and to a client of ours, for dead letters and for answers.
struct Places {
    plain: Plain,
    names: [String; 5],
}

impl Places {
    async fn new() -> Self {
        let (plain, names) =
            (Plain::connect(&server::url()).await, ["in", "out", "ours", "dead", "answers"].map(unique));
        for name in &names[1..] {
            plain.declare(name, &[]).await;
        }
        let dead = [
            ("x-dead-letter-exchange", AMQPValue::LongString("".into())),
            ("x-dead-letter-routing-key", AMQPValue::LongString(names[3].as_str().into())),
        ];
        plain.declare(&names[0], &dead).await;
        Self { plain, names }
    }

    async fn get(&self, queue: &str) -> BasicProperties {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = self.plain.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
            if let Some(message) = got.expect("an answer") {
                return message.delivery.properties;
            }
            assert!(Instant::now() < deadline, "a message comes to {queue}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the foreign client has written, as a client of ours reads it.
    async fn written(&self, foreign: &mut Foreign) -> FieldTable {
        let [_, _, ours, ..] = &self.names;
        foreign.run(&["write", ours, "", "x"]).await;
        self.get(ours).await.headers().clone().expect("headers")
    }

    /// A client of ours has read all headers of the foreign one with their types and values.
    async fn check_ours(&self, written: &FieldTable) {
        let [_, _, ours, ..] = &self.names;
        let arrived = self.get(ours).await.headers().clone().expect("headers");
        for (name, value) in written {
            assert_eq!(arrived.inner().get(name.as_str()), Some(value), "{name}");
        }
    }

    async fn stop(self) {
        for name in &self.names {
            self.plain.delete(name).await;
        }
    }
}

/// Asserts that a table has every type which a server takes and the client can write.
fn check_types(table: &FieldTable, client: &Client) {
    use AMQPType::{
        Boolean, ByteArray, DecimalValue, Double, FieldArray, FieldTable, Float, LongInt, LongLongInt, LongString,
        LongUInt, ShortInt, ShortShortInt, ShortShortUInt, ShortUInt, Timestamp, Void,
    };
    let all = [
        Boolean,
        ByteArray,
        DecimalValue,
        Double,
        FieldArray,
        FieldTable,
        Float,
        LongInt,
        LongLongInt,
        LongString,
        LongUInt,
        ShortInt,
        ShortShortInt,
        ShortShortUInt,
        ShortUInt,
        Timestamp,
        Void,
    ];
    let letters = |kinds: &[AMQPType]| kinds.iter().map(|kind| kind.get_id()).collect::<BTreeSet<char>>();
    let kinds = table.into_iter().map(|(_, value)| value.get_type().get_id()).collect::<BTreeSet<char>>();
    assert_eq!(kinds, &letters(&all) - &letters(client.unwritten), "{}: {table:?}", client.name);
}

/// The trace and the span of an answer are ours, in a header that the foreign client reads as a string.
fn check_answer(answer: &str, capture: &Capture) {
    let spans = capture.spans();
    let sent: Vec<_> = spans.iter().filter(|span| span.span_kind == SpanKind::Producer).collect();
    let is_one = |context: &str| sent.iter().any(|span| context == span.span_context.span_id().to_string());
    let parts: Vec<&str> = answer.split(' ').collect();
    let [body, "c1", "S", traceparent] = parts[..] else { panic!("PROP-R-01: {answer}") };
    assert_eq!((body, &traceparent[3..35]), ("answer", TRACE), "{answer}");
    assert!(is_one(&traceparent[36..52]), "{answer}");
}

/// The process spans are children of the foreign client's.
fn check_parents(capture: &Capture, messages: usize) {
    let spans = capture.spans();
    let processed: Vec<_> = spans.iter().filter(|span| span.span_kind == SpanKind::Consumer).collect();
    assert_eq!(processed.len(), messages);
    for span in processed {
        let (trace, parent) = (span.span_context.trace_id().to_string(), span.parent_span_id.to_string());
        assert_eq!((trace.as_str(), parent.as_str()), (TRACE, SPAN), "LINK-06");
    }
}

/// Through a delay queue, a forward, a dead letter and an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server, Java and Python: cargo xtask test --broker rabbit"]
async fn every_type_of_a_foreign_client_passes_the_framework_and_comes_back_to_it() {
    for client in &CLIENTS {
        pass_the_framework(client).await;
    }
}

async fn pass_the_framework(client: &'static Client) {
    let (places, capture) = (Places::new().await, Capture::new());
    let mut foreign = Foreign::start(client);
    let [inlet, out, ours, dead, answers] = places.names.clone();
    let written = places.written(&mut foreign).await;
    check_types(&written, client);
    let to = [out.clone(), ours.clone()];
    let handle = move |delivery: throughline_core::Delivery, publisher: Publisher| {
        let to = to.clone();
        async move {
            if delivery.payload() == "bury" {
                return Err(Settlement::reject("unwanted"));
            }
            if delivery.attempt() == 1 {
                return Err(Settlement::retry_after(Duration::from_millis(100)));
            }
            for name in to {
                let sent = publisher.publish_envelope(Envelope::forward(&delivery, Destination::new(name))).await;
                sent.expect("a forward");
            }
            Ok("answer")
        }
    };
    let queue = Queue::new(inlet.as_str()).no_declare().prefetch(1);
    let route = Handler::<(throughline_core::Delivery, Publisher), _>::dead_letter(handle, dead.clone());
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(queue, route);
    let running = serve(server::connect().await, app).start().await.expect("the app starts");
    foreign.run(&["write", &inlet, &answers, "bury", "pass"]).await;
    assert_eq!(
        foreign.run(&["read", &dead, "typed"]).await,
        format!("bury c1 S {PARENT} dead-letter-origin dead-letter-reason"),
        "the dead letter has all headers and its cause"
    );
    assert_eq!(foreign.run(&["read", &out, "typed"]).await, format!("pass c1 S {PARENT}"));
    places.check_ours(&written).await;
    let failed = foreign.run(&["read", &answers, "plain"]).await;
    assert!(
        failed.starts_with(&format!(" c1 S 00-{TRACE}-")) && failed.ends_with(" reply-error reply-error-code"),
        "{failed}"
    );
    let answer = foreign.run(&["read", &answers, "plain"]).await;
    running.shutdown().await.expect("an end");
    check_answer(&answer, &capture);
    check_parents(&capture, 3);
    places.plain.delete(&format!("{inlet}.retry.1s")).await;
    places.stop().await;
}

/// Through a forward, the server's own dead lettering, and an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server, Java and Python: cargo xtask test --broker rabbit"]
async fn every_type_of_a_foreign_client_passes_the_raw_door_and_comes_back_to_it() {
    for client in &CLIENTS {
        pass_the_raw_door(client).await;
    }
}

async fn pass_the_raw_door(client: &'static Client) {
    let (places, capture) = (Places::new().await, Capture::new());
    let mut foreign = Foreign::start(client);
    let [inlet, out, ours, dead, answers] = &places.names;
    let written = places.written(&mut foreign).await;
    let otel = Instrumentation::from(capture.instrumentation().build());
    let (telemetry, channel) = (otel.subscription(Queue::new(inlet.as_str())), &places.plain.channel);
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(inlet.as_str().into(), "".into(), options, FieldTable::default());
    let mut messages = consumer.await.expect("a consumer");
    foreign.run(&["write", inlet, answers, "bury", "pass"]).await;
    for _ in 0..2 {
        let message: Delivery = timeout(PATIENCE, messages.next()).await.expect("in time").expect("one").expect("one");
        let handled = telemetry.process(&message, async {
            if message.data == b"bury" {
                return telemetry
                    .basic_reject(channel, message.delivery_tag, BasicRejectOptions { requeue: false })
                    .await;
            }
            let forward = otel.with_creation_context(CreationContext::Kept);
            let options = BasicPublishOptions::default();
            for name in [out, ours] {
                let properties = message.properties.clone();
                forward
                    .basic_publish(channel, "".into(), name.as_str().into(), options, &message.data, properties)
                    .await?
                    .await?;
            }
            let to = message.properties.reply_to().clone().expect("who asks");
            let id = message.properties.correlation_id().clone().expect("an id");
            let properties = BasicProperties::default().with_correlation_id(id);
            otel.basic_publish(channel, "".into(), to, options, b"answer", properties).await?.await?;
            telemetry.basic_ack(channel, message.delivery_tag, BasicAckOptions::default()).await
        });
        handled.await.expect("all is written");
    }
    let by_server = foreign.run(&["read", dead, "typed"]).await;
    assert!(by_server.starts_with(&format!("bury c1 S {PARENT} x-")) && by_server.contains(" x-death"), "{by_server}");
    assert_eq!(foreign.run(&["read", out, "typed"]).await, format!("pass c1 S {PARENT}"));
    places.check_ours(&written).await;
    check_answer(&foreign.run(&["read", answers, "plain"]).await, &capture);
    check_parents(&capture, 2);
    places.stop().await;
}

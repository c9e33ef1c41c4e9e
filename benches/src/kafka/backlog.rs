//! The memory of a consumer whose handler does not come to an end, while messages lie on the server behind it.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::message::Message;
use serde_json::{Value, json};
use throughline_core::{App, serve};
use throughline_kafka::{Kafka, Topic};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{clients, topics};
use crate::programs::{engine, provider, runtime};
use crate::resident::resident;
use crate::stats::rounded;

/// The first argument of the process that measures one row: each has memory of its own.
pub const BACKLOG: &str = "backlog";

const PARTITIONS: i32 = 4;
const MESSAGES: [usize; 3] = [10_000, 100_000, 400_000];

/// What is measured, by the name that the process is given.
const KINDS: [(&str, &str); 3] = [
    ("plain", "the plain client, one handler"),
    ("ours", "ours, a handler for each partition"),
    ("unordered", "ours, a handler for each message"),
];

/// How often memory is looked at, and for how long it must not have grown.
const STEP: Duration = Duration::from_millis(50);
const CALM: Duration = Duration::from_secs(3);
/// More than it takes to fetch them all.
const PATIENCE: Duration = Duration::from_secs(60);

/// No handler ends before it is opened.
static GATE: Semaphore = Semaphore::const_new(0);
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

/// Memory row by row.
#[derive(Clone, Debug)]
pub struct Backlogs(Vec<Backlog>);

#[derive(Clone, Debug)]
struct Backlog {
    kind: &'static str,
    messages: usize,
    handlers: usize,
    before: f64,
    most: f64,
}

pub(super) async fn measure(url: &str) -> Result<Backlogs, Box<dyn Error>> {
    let mut rows = Vec::new();
    for messages in MESSAGES {
        let topic = topics::name(&format!("backlog.{messages}"));
        topics::create(url, topic, PARTITIONS).await?;
        topics::fill(url, topic, PARTITIONS, messages).await?;
        for (name, kind) in KINDS {
            let output =
                Command::new(env::current_exe()?).args([BACKLOG, name, topic]).arg(messages.to_string()).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            let [handlers, before, most] = numbers.as_slice() else {
                return Err(format!("{kind}: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
            };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of handlers
            let handlers = *handlers as usize;
            rows.push(Backlog { kind, messages, handlers, before: *before, most: *most });
        }
    }
    Ok(Backlogs(rows))
}

/// Measures one row in this process and returns its numbers as text: the handlers that run, and the resident MiB before and at most.
///
/// # Errors
///
/// When the arguments are others than a measuring process gives, or the server does not answer.
pub fn backlog(url: &str, arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let [name, topic, messages] = arguments else { return Err("a program, a topic and a number are needed".into()) };
    let messages = messages.parse()?;
    runtime()?.block_on(async {
        let before = resident().ok_or("the kernel does not say how much memory is resident")?;
        let group = format!("{topic}.{name}");
        let (handlers, most) = match name.as_str() {
            "plain" => by_client(url, &group, topic).await?,
            "ours" => by_ours(url, Topic::new(topic.as_str()).group(group)).await?,
            _ => by_ours(url, Topic::new(topic.as_str()).group(group).unordered(messages).prefetch(messages)).await?,
        };
        Ok(format!("{handlers} {before} {most}"))
    })
}

async fn by_client(url: &str, group: &str, topic: &str) -> Result<(usize, f64), Box<dyn Error>> {
    let consumer = clients::consumer(url, group, topic)?;
    let worker = tokio::spawn(async move {
        while let Ok(message) = consumer.recv().await {
            wait(message.payload().unwrap_or_default()).await;
        }
    });
    let most = peak().await;
    worker.abort();
    let _ = worker.await;
    Ok(most)
}

async fn by_ours(url: &str, topic: Topic) -> Result<(usize, f64), Box<dyn Error>> {
    let kafka = Kafka::connect_with(clients::config(url)).await?;
    let provider = provider();
    let app = App::new().subscribe(topic, |body: Bytes| async move { wait(&body).await });
    let running = serve(kafka, app.telemetry(engine(&provider).into())).start().await?;
    let most = peak().await;
    GATE.close();
    running.shutdown().await?;
    Ok(most)
}

async fn wait(body: &[u8]) {
    HANDLERS.fetch_add(1, Ordering::Relaxed);
    // Closed when the row is measured.
    let _ = GATE.acquire().await;
    std::hint::black_box(body);
}

/// Looks at the memory until it has not grown for a while, and returns the handlers that run then and the most MiB.
async fn peak() -> (usize, f64) {
    let (begun, mut grown, mut most) = (Instant::now(), Instant::now(), 0.0);
    while grown.elapsed() < CALM && begun.elapsed() < PATIENCE {
        let now = resident().unwrap_or_default();
        // By less than the noise of the allocator is not grown. It has not begun as long as the group gives no partition.
        if now > most + 0.1 || HANDLERS.load(Ordering::Relaxed) == 0 {
            grown = Instant::now();
            most = now.max(most);
        }
        sleep(STEP).await;
    }
    (HANDLERS.load(Ordering::Relaxed), most)
}

impl Backlogs {
    /// Writes the table as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| messages on the server | program | handlers that run | resident MiB before | resident MiB at most |\n\
             | ---: | --- | ---: | ---: | ---: |\n",
        );
        for Backlog { kind, messages, handlers, before, most } in &self.0 {
            let _ = writeln!(text, "| {messages} | {kind} | {handlers} | {before:.0} | {most:.0} |");
        }
        text
    }

    /// Writes the rows as a list of objects.
    #[must_use]
    pub fn json(&self) -> Value {
        let row = |row: &Backlog| {
            json!({
                "case": row.kind,
                "messages": row.messages,
                "handlers": row.handlers,
                "before": rounded(row.before),
                "most": rounded(row.most),
            })
        };
        self.0.iter().map(row).collect()
    }
}

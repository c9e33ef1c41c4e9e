//! A service in a process of its own, whose log is read: the client's threads have no log that is a test's.
//!
//! A test starts its own program once more. There [`given`] says what the service is to do; it prints what it handles and what a
//! subscriber shows by default.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_core::{App, Delivery};
use throughline_kafka::{NativeRecord, Topic};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::load::{PATIENCE, start};

/// What tells the program that it is the service.
const GIVEN: &str = "THROUGHLINE_TEST_SERVICE";

/// Returns what the service is to do, in the process that is one.
pub(crate) fn given() -> Option<Vec<String>> {
    Some(std::env::var(GIVEN).ok()?.split(' ').map(str::to_owned).collect())
}

/// Serves a subscription until the process is killed. The message `wait` waits for a line on standard input.
pub(crate) async fn serve(bootstrap: &str, subscription: Topic) {
    tracing::subscriber::set_global_default(Printed).expect("the process is the service's own");
    let handle = |delivery: Delivery| async move {
        let body = String::from_utf8_lossy(delivery.payload()).into_owned();
        let offset = delivery.native::<NativeRecord>().expect("a message of Kafka").offset();
        print(&format!("handled {offset} {body}"));
        if body == "wait" {
            spawn_blocking(|| std::io::stdin().read_line(&mut String::new()).expect("a line"))
                .await
                .expect("it is read");
        }
    };
    let running = start(bootstrap, App::new().subscribe(subscription, handle)).await;
    print("started");
    running.run_until(std::future::pending()).await.expect("it is killed");
}

/// Written at once, so that a kill takes none of it away.
fn print(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).expect("the test reads");
}

/// Prints what happens from the level INFO on.
struct Printed;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("a text takes all");
    }
}

impl Subscriber for Printed {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("log {} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        print(&line.0.replace('\n', " "));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The process of a service.
pub(crate) struct Service {
    child: Child,
    input: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Starts a test's own program once more; returns when its app has started.
    pub(crate) async fn start(test: &str, given: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the program of the test"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(GIVEN, given.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program of the test starts once more");
        let (input, output) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        let mut output = BufReader::new(output).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                read.lock().expect("nobody panicked").push(line);
            }
        });
        let service = Self { child, input, lines };
        service.until("it has started", |lines| lines.iter().any(|line| line == "started")).await;
        service
    }

    /// Waits until what it has said so far is enough.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.lines()) {
            assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}; it said {:#?}", self.lines());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many messages are handled.
    pub(crate) async fn handles(&self, count: usize) {
        self.until(&format!("{count} messages are handled"), |lines| handled(lines).count() >= count).await;
    }

    /// The offsets and bodies it has handled, in their order.
    pub(crate) fn handled(&self) -> Vec<String> {
        handled(&self.lines()).map(str::to_owned).collect()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.starts_with("log ")).collect()
    }

    /// Lets the message go on that waits.
    pub(crate) async fn go_on(&mut self) {
        self.input.write_all(b"go on\n").await.expect("it reads");
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args([name, &id]).status().await.expect("`kill` runs");
        assert!(told.success(), "{told}");
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panicked").clone()
    }
}

fn handled(lines: &[String]) -> impl Iterator<Item = &str> {
    lines.iter().filter_map(|line| line.strip_prefix("handled "))
}

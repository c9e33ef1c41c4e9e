//! A service in a process of its own, which a signal or a kill ends.
//!
//! A test starts its own program once more. There [`given`] says what the service is to do; it prints what it does and what it logs.

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::load::PATIENCE;

/// What tells the program that it is the service.
const GIVEN: &str = "THROUGHLINE_TEST_RABBIT_SERVICE";

/// Returns what the service is to do, in the process that is one.
pub(crate) fn given() -> Option<Vec<String>> {
    Some(std::env::var(GIVEN).ok()?.split(' ').map(str::to_owned).collect())
}

/// Written at once, so that a kill takes none of it away.
pub(crate) fn print(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).expect("the test reads");
}

/// Prints what is logged, from the level INFO on.
pub(crate) fn print_log() {
    tracing::subscriber::set_global_default(Printed).expect("the process is the service's own");
}

struct Printed;

/// An event as one line: its level, where it came from, and its fields.
pub(crate) struct Line(String);

impl Line {
    pub(crate) fn of(event: &Event<'_>) -> String {
        let mut line = Self(format!("log {} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        line.0.replace('\n', " ")
    }
}

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
        print(&Line::of(event));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The process of a service.
pub(crate) struct Service {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reading: JoinHandle<()>,
}

impl Service {
    /// Starts a test's own program once more.
    pub(crate) fn start(test: &str, given: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the program of the test"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(GIVEN, given.join(" "))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program of the test starts once more");
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                read.lock().expect("nobody panicked").push(line);
            }
        });
        Self { child, lines, reading }
    }

    /// Waits until what it has said so far is enough.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if is_so(&self.lines.lock().expect("nobody panicked")) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The numbers it has said after a word.
    pub(crate) fn numbers(&self, word: &str) -> Vec<u64> {
        numbers(&self.lines.lock().expect("nobody panicked"), word)
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args([name, &id]).status().await.expect("`kill` runs");
        assert!(told.success(), "{told}");
    }

    /// Waits for its end, until all that it said is read.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it ends");
        (&mut self.reading).await.expect("all it said is read");
        status
    }

    /// Kills it without notice.
    pub(crate) async fn kill(&mut self) {
        self.child.start_kill().expect("it is killed");
        assert!(!self.end().await.success(), "it was killed");
    }
}

/// The numbers in lines that begin with a word.
pub(crate) fn numbers(lines: &[String], word: &str) -> Vec<u64> {
    lines.iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
}

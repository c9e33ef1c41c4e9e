//! Signals of the operating system: one lets an app finish, a second one ends it at once.

#![cfg(unix)]
// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

use std::future::pending;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use throughline_core::{App, Delivery, serve};
use throughline_memory::{Channel, Memory};

/// How long a service may take that is to end at once. The shutdown timeout is 25 s.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Says to a test that it is the service, with or without a message for it.
const SERVICE: &str = "THROUGHLINE_TEST_SERVICE";

/// The service that a test starts in a process of its own. Its handler never ends.
fn service(has_message: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let ended = runtime.block_on(async {
        let memory = Memory::new();
        let hang = async |_delivery: Delivery| {
            println!("begun");
            pending::<()>().await;
        };
        let service = serve(memory.clone(), App::new().subscribe(Channel::new("orders").group("stock"), hang));
        let health = service.health();
        let watching = async {
            while !health.is_ready() {
                tokio::task::yield_now().await;
            }
            println!("ready");
            if has_message {
                memory.publisher().publish("orders", "42").await.unwrap();
            }
            while health.is_ready() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            println!("draining");
            pending::<()>().await;
        };
        tokio::select! {
            ended = service.with_signals() => ended.map_err(|error| error.kind()),
            () = watching => Ok(()),
        }
    });
    println!("ended: {ended:?}");
    runtime.shutdown_background();
}

/// A service that runs, and what it says.
struct Service {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Service {
    /// Starts the service of a test; `None` in the service itself, when it has ended.
    fn start(test: &str, has_message: bool) -> Option<Self> {
        if std::env::var_os(SERVICE).is_some() {
            service(has_message);
            return None;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(SERVICE, "1").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Some(Self { process, lines })
    }

    /// Waits for a line that begins so.
    fn says(&mut self, start: &str) -> String {
        let found = self.lines.by_ref().map_while(Result::ok).find(|line| line.contains(start));
        found.unwrap_or_else(|| panic!("the service ended without saying `{start}`"))
    }

    fn signal(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_signal_ends_an_idle_app() {
    let Some(mut service) = Service::start("a_signal_ends_an_idle_app", false) else { return };
    service.says("ready");
    service.signal();
    assert!(service.says("ended").ends_with("ended: Ok(())"));
}

#[test]
fn a_second_signal_ends_an_app_whose_handler_hangs() {
    let Some(mut service) = Service::start("a_second_signal_ends_an_app_whose_handler_hangs", true) else { return };
    service.says("begun");
    service.signal();
    service.says("draining");
    let sent = Instant::now();
    service.signal();
    assert!(service.says("ended").ends_with("ended: Err(Shutdown)"));
    assert!(sent.elapsed() < AT_ONCE, "{:?}", sent.elapsed());
}

//! The demo as somebody runs it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::PATIENCE;
use crate::brokers::alone;

/// Set for a demo and all that it starts, to a value of this test.
const MARK: &str = "ORDERS_DEMO_OF_TEST";

struct Demo {
    child: Child,
    mark: String,
}

impl Demo {
    fn start(test: &str, arguments: &[&str]) -> Self {
        let mark = format!("{test}-{}", std::process::id());
        let child = Command::new(env!("CARGO_BIN_EXE_orders"))
            .args(["demo", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env(MARK, &mark)
            // Not to build what is built.
            .env_remove("CARGO")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, mark }
    }

    /// Waits for its end, and returns its exit code and what it said on its two outputs.
    async fn end(mut self) -> (Option<i32>, String, String) {
        let read = |mut pipe: Box<dyn std::io::Read + Send>| {
            tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                pipe.read_to_string(&mut text).unwrap();
                text
            })
        };
        let output = read(Box::new(self.child.stdout.take().unwrap()));
        let errors = read(Box::new(self.child.stderr.take().unwrap()));
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
            }
            sleep(Duration::from_millis(50)).await;
        };
        let said = (status.code(), output.await.unwrap(), errors.await.unwrap());
        assert_eq!(self.processes(), BTreeSet::new(), "the demo left processes behind: {said:?}");
        said
    }

    /// The processes that have the mark in their environment, but for the demo itself.
    fn processes(&self) -> BTreeSet<String> {
        let mark = format!("{MARK}={}", self.mark);
        let is_marked =
            |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
        let marked = entries.filter(|entry| fs::read(entry.path().join("environ")).is_ok_and(is_marked));
        let others = marked.filter(|entry| *entry.file_name() != *self.child.id().to_string());
        others.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default()).collect()
    }
}

#[tokio::test]
#[ignore = "needs all brokers: cargo xtask test"]
async fn the_demo_draws_an_order_through_all_services_and_ends() {
    let _alone = alone().await;
    let (code, output, errors) = Demo::start("end", &["--orders", "50", "--rate", "50"]).end().await;
    assert_eq!(code, Some(0), "{output}\n{errors}");
    let picture = output.split("trace ").nth(1).unwrap_or_else(|| panic!("no picture:\n{output}"));
    for line in [
        "storefront POST /orders",
        "warehouse",
        "process shop.orders",
        "take off the shelf",
        "billing",
        "process shop.notices",
    ] {
        assert!(picture.contains(line), "no {line} in the first picture:\n{output}");
    }
    assert!(output.contains("none lost"), "{output}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "needs all brokers: cargo xtask test"]
async fn ctrl_c_ends_the_demo_and_all_that_it_started() {
    let _alone = alone().await;
    let mut demo = Demo::start("interrupt", &["--orders", "1000000"]);
    let mut said = String::new();
    while !said.contains("placing") {
        let mut byte = [0];
        assert_eq!(demo.child.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "{said}");
        said.push(char::from(byte[0]));
    }
    assert_eq!(demo.processes().len(), 3, "{:?}", demo.processes());
    let kill = Command::new("kill").args(["-INT", &demo.child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let (code, output, errors) = demo.end().await;
    assert_eq!(code, Some(130), "{said}{output}\n{errors}");
    assert!(errors.contains("interrupted; everything that was started is stopped"), "{errors}");
}

//! The program, started for one test, and what it says.

// Each test file uses a part of it, and helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, dead_code, reason = "a failure here is a failure of the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// `throughline view` on two free ports.
pub(crate) struct Program {
    child: Child,
    keys: ChildStdin,
    output: Text,
    errors: Text,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// What a program wrote so far.
#[derive(Clone, Default)]
struct Text {
    bytes: Arc<Mutex<Vec<u8>>>,
    paused: Arc<AtomicBool>,
}

impl Program {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut child = command()
            .args(["--grpc-port", "0", "--http-port", "0"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = |after: &str| {
            let address = line.split(after).nth(1).and_then(|rest| rest.split([',', '\n']).next());
            address
                .and_then(|address| address.parse().ok())
                .unwrap_or_else(|| panic!("no address after {after}: {line}"))
        };
        let (grpc, http) = (address("gRPC on http://"), address("HTTP on http://"));
        let output = Text::of(child.stdout.take().unwrap());
        Self { keys: child.stdin.take().unwrap(), output, errors: Text::of(said), child, grpc, http }
    }

    /// Waits until it has drawn this, and returns all that it has drawn.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let drawn = self.output.read();
            if drawn.contains(text) {
                return drawn;
            }
            assert!(Instant::now() < deadline, "`{text}` was not drawn:\n{drawn}\n{}", self.errors.read());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn press_enter(&mut self) {
        self.keys.write_all(b"\n").unwrap();
    }

    /// Stops reading what it draws, as a terminal does on Ctrl-S. What a pipe holds is still taken.
    pub(crate) fn pause(&self) {
        self.output.paused.store(true, Ordering::Relaxed);
    }

    /// Reads again.
    pub(crate) fn go_on(&self) {
        self.output.paused.store(false, Ordering::Relaxed);
    }

    /// Presses Ctrl-C, and returns what was drawn, what else was said, and how it ended.
    pub(crate) fn end(mut self) -> (String, String, ExitStatus) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let status = self.exited();
        let (output, errors) = (self.output.complete(), self.errors.complete());
        (output, errors, status)
    }

    /// Waits until it has ended.
    pub(crate) fn exited(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; it said {}", self.errors.read());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, or the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Text {
    /// Reads on a thread of its own, so that no pipe is ever full.
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let text = Self::default();
        let written = text.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                written.bytes.lock().unwrap().extend(&buffer[..count]);
                while written.paused.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        text
    }

    fn read(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// What there is once the other end is closed and the thread has read it all.
    fn complete(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Arc::strong_count(&self.bytes) > 1 {
            assert!(Instant::now() < deadline, "the pipe is not closed");
            thread::sleep(Duration::from_millis(1));
        }
        self.read()
    }
}

/// The program without its ports.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
    command.arg("view").env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

/// Sends a request over HTTP/1.1, or over HTTP/2 where it is one of gRPC.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let is_grpc =
        request.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let client = Client::builder(TokioExecutor::new()).http2_only(is_grpc).build_http();
    let response = client.request(request).await.unwrap();
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    head.headers.extend(body.trailers().cloned().unwrap_or_default());
    Response::from_parts(head, body.to_bytes())
}

//! What a test sees of a service: its log, the bodies it handled, and what goes over the wire without the client.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use throughline_core::broker::Subscription;
use throughline_core::{App, Delivery};
use throughline_testing::{Capture, MetricPoint};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Metadata, span};

use crate::server::OwnServer;

/// How long everything may take, with all the deliveries again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a name that no other run has, for shared servers.
pub(crate) fn unique() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("t{:x}-{:x}-{}", now.as_micros(), std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Returns what a counter has come to, over all its attributes that have these values.
pub(crate) fn counted(capture: &Capture, name: &str, with: &[(&str, &str)]) -> u64 {
    let has = |point: &MetricPoint| {
        with.iter().all(|(key, value)| point.attributes.get(*key).is_some_and(|found| found.as_str() == *value))
    };
    capture.metrics().iter().filter(|point| point.name == name && has(point)).map(|point| point.sum as u64).sum()
}

/// What was logged for operators, on the thread of the test.
#[derive(Clone, Default)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
}

impl Log {
    /// The tests run on one thread, so that this sees all that their tasks log, and nothing else.
    pub(crate) fn capture() -> (Self, (DefaultGuard, Dispatch)) {
        let log = Self::default();
        // With one dispatcher alone, a thread of another test may switch an event off for all.
        let second = Dispatch::new(Self::default());
        let guard = tracing::subscriber::set_default(log.clone());
        (log, (guard, second))
    }

    pub(crate) fn has(&self, level: Level, part: &str) -> bool {
        self.lines.lock().expect("no test panicked").iter().any(|(at, line)| *at == level && line.contains(part))
    }

    /// Adds up a number over all lines that have this part.
    pub(crate) fn sum(&self, part: &str, field: &str) -> u64 {
        let lines = self.lines.lock().expect("no test panicked");
        let values = lines.iter().filter(|(_, line)| line.contains(part)).flat_map(|(_, line)| line.split(' '));
        let numbers = values.filter_map(|value| value.strip_prefix(field)?.strip_prefix('='));
        numbers.map(|number| number.parse::<u64>().expect("a number")).sum()
    }

    /// Waits until one of the two ways to lose a connection is logged.
    pub(crate) async fn tells_of_a_loss(&self, poison: &str) {
        let told = || {
            self.has(Level::ERROR, "the connection task of the NATS client ended")
                || self.has(Level::WARN, "the connection to NATS was lost and made again")
                || self.has(Level::WARN, "the connection to NATS is lost")
        };
        wait_until(&format!("the loss by {poison} is logged"), told).await;
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("throughline") && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.lines.lock().expect("no test panicked").push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
pub(crate) struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.push_str(&format!("{value:?} ")),
            name => self.0.push_str(&format!("{name}={value:?} ")),
        }
    }
}

/// The bodies that a handler got.
#[derive(Clone)]
pub(crate) struct Handled {
    bodies: Arc<watch::Sender<Vec<String>>>,
}

impl Handled {
    pub(crate) fn new() -> Self {
        Self { bodies: Arc::new(watch::Sender::new(Vec::new())) }
    }

    pub(crate) fn app(&self, subscription: impl Into<Subscription>) -> App {
        self.on(App::new().without_telemetry(), subscription)
    }

    /// Handles the messages of one more subscription.
    pub(crate) fn on(&self, app: App, subscription: impl Into<Subscription>) -> App {
        let bodies = Arc::clone(&self.bodies);
        let handle = move |delivery: Delivery| {
            let bodies = Arc::clone(&bodies);
            async move {
                let body = String::from_utf8_lossy(delivery.payload()).into_owned();
                bodies.send_modify(|bodies| bodies.push(body));
            }
        };
        app.subscribe(subscription, handle)
    }

    pub(crate) fn count(&self) -> usize {
        self.bodies.borrow().len()
    }

    pub(crate) fn has(&self, body: &str) -> bool {
        self.bodies.borrow().iter().any(|handled| handled == body)
    }

    pub(crate) async fn all(&self, of: &[String]) {
        let missing = || of.iter().filter(|body| !self.has(body)).cloned().collect::<Vec<_>>();
        wait_until("all messages are handled", || missing().is_empty()).await;
    }
}

pub(crate) async fn wait_until_async(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Publishes over a plain connection what the client would refuse to, and returns when the server has it.
pub(crate) async fn send_raw(server: &OwnServer, subject: &str, headers: &[u8], body: &str) {
    let address = server.url();
    let stream = TcpStream::connect(address.trim_start_matches("nats://")).await.expect("the server accepts");
    let mut stream = BufReader::new(stream);
    let mut sent = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n".to_vec();
    sent.extend(format!("HPUB {subject} {} {}\r\n", headers.len(), headers.len() + body.len()).bytes());
    sent.extend([headers, body.as_bytes(), b"\r\nPING\r\n"].concat());
    stream.write_all(&sent).await.expect("the server reads");
    let answered = async {
        let mut line = String::new();
        while !line.starts_with("PONG") {
            assert!(!line.starts_with("-ERR"), "the server refuses the message: {line}");
            line.clear();
            assert!(stream.read_line(&mut line).await.expect("the server answers") > 0, "the server hung up");
        }
    };
    timeout(PATIENCE, answered).await.expect("the server has the message");
}

/// Passes connections on to a server until it is told not to accept more.
pub(crate) struct Door {
    server: String,
    accepting: JoinHandle<()>,
    port: u16,
}

impl Door {
    pub(crate) async fn open(server: &OwnServer, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a loopback port");
        let port = listener.local_addr().expect("the port").port();
        let server = server.url().trim_start_matches("nats://").to_owned();
        let to = server.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let mut outside = TcpStream::connect(&to).await.expect("the server accepts");
                tokio::spawn(async move { copy_bidirectional(&mut inside, &mut outside).await });
            }
        });
        Self { server, accepting, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Leaves the connections that are there.
    pub(crate) async fn close(self) -> u16 {
        self.accepting.abort();
        assert!(self.accepting.await.is_err_and(|ended| ended.is_cancelled()), "{} was reached", self.server);
        self.port
    }
}

/// Passes connections on to a server; those that are there can be made to pass on nothing more, without an end.
pub(crate) struct MutableDoor {
    port: u16,
    muted: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl MutableDoor {
    pub(crate) async fn open(server: &OwnServer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
        let port = listener.local_addr().expect("the port").port();
        let to = server.url().trim_start_matches("nats://").to_owned();
        let muted = watch::Sender::new(0);
        let mutes = muted.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let mut outside = TcpStream::connect(&to).await.expect("the server accepts");
                let mut mute = mutes.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = mute.changed() => {
                            // Both stay open, and nobody reads or writes.
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self { port, muted, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Lets nothing more pass on the connections that are there.
    pub(crate) fn mute(&self) {
        self.muted.send_modify(|times| *times += 1);
    }
}

impl Drop for MutableDoor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

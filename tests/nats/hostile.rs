//! What strangers may send over a real server, also what the client library refuses to write and what breaks it.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::Context;
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue};
use async_trait::async_trait;
use bytes::Bytes;
use throughline_core::middleware::TelemetryMiddleware;
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, serve};
use throughline_testing::Capture;
use throughline_testing::conformance::hostile::small_corpus;
use throughline_testing::conformance::{Given, Harness, HeaderSet, Spec, Stranger, Strangers};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use crate::core_nats::CoreNats;
use crate::jetstream::JetStream;
use crate::server;
use crate::wire::Wire;

/// A program of somebody else: writes with async-nats what that takes, and everything else itself.
struct Outsider {
    client: Client,
    stream: Option<Context>,
    wire: Mutex<Wire>,
}

impl Outsider {
    async fn connect(url: &str) -> Self {
        let client = server::options().connect(url).await.expect("a connection to THROUGHLINE_NATS_URL");
        Self { client, stream: None, wire: Mutex::new(Wire::connect(url).await) }
    }

    fn into_stream(self) -> Self {
        Self { stream: Some(async_nats::jetstream::new(self.client.clone())), ..self }
    }

    async fn send_by_client(&self, subject: String, headers: HeaderMap, body: Bytes) -> bool {
        if let Some(stream) = &self.stream {
            return match stream.publish_with_headers(subject, headers, body).await {
                Ok(stored) => stored.await.is_ok(),
                Err(_) => false,
            };
        }
        self.client.publish_with_headers(subject, headers, body).await.is_ok()
    }

    async fn send_by_hand(&self, subject: &str, block: &[u8], body: &[u8]) -> bool {
        let mut wire = self.wire.lock().await;
        match &self.stream {
            Some(_) => wire.store(subject, block, body).await,
            None => wire.publish(subject, block, body).await,
        }
    }
}

#[async_trait]
impl Stranger for Outsider {
    async fn send(&self, destination: &str, set: &HeaderSet, body: Bytes) -> Given {
        let block = block(set);
        if block.len() + body.len() > self.client.server_info().max_payload {
            return Given::Refused;
        }
        let (sent, given) = match native(set) {
            Some(headers) => (self.send_by_client(destination.to_owned(), headers, body).await, Given::AsItIs),
            None if !is_readable(&block) => return Given::HeldBack,
            None => (self.send_by_hand(destination, &block, &body).await, Given::ByHand),
        };
        if sent { given } else { Given::Refused }
    }

    fn is_reserved(&self, name: &str) -> bool {
        name.to_ascii_lowercase().starts_with("nats-")
    }

    /// The client logs every message with its headers on level trace.
    fn client_log_targets(&self) -> &'static [&'static str] {
        &["async_nats"]
    }
}

#[async_trait]
impl Strangers for CoreNats {
    async fn stranger(&self) -> Box<dyn Stranger> {
        Box::new(Outsider::connect(&self.url).await)
    }
}

#[async_trait]
impl Strangers for JetStream {
    async fn stranger(&self) -> Box<dyn Stranger> {
        Box::new(Outsider::connect(&self.url).await.into_stream())
    }
}

/// Returns the headers in the client's type, when it takes them and they arrive as they are.
fn native(set: &HeaderSet) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &set.headers {
        let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        // Space around a value is lost on the way.
        if name.is_empty() || value != value.trim() {
            return None;
        }
        headers.append(HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?);
    }
    Some(headers)
}

/// Returns the block of headers as it goes over the wire.
fn block(set: &HeaderSet) -> Vec<u8> {
    let mut block = b"NATS/1.0\r\n".to_vec();
    for (name, value) in &set.headers {
        block.extend([name, &b": "[..], value, b"\r\n"].concat());
    }
    block.extend(b"\r\n");
    block
}

/// Tells whether async-nats 0.51 survives a block of headers when it receives it (PROP-N-07).
fn is_readable(block: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(block) else { return false };
    let mut lines = text.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { return false };
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if HeaderName::from_str(name).is_err() || HeaderValue::from_str(value.trim_end()).is_err() {
            return false;
        }
    }
    true
}

mod core_sets {
    use super::CoreNats;
    throughline_testing::conformance_hostile!(CoreNats, ignore = "needs a NATS server: cargo xtask test --broker nats");
}

mod jetstream_sets {
    use super::JetStream;
    throughline_testing::conformance_hostile!(
        JetStream,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

/// Blocks of headers that break the connection of async-nats 0.51 when it receives them.
const BREAKING: [(&str, &[u8]); 9] = [
    ("a bare carriage return", b"NATS/1.0\r\nx-note: a\rb\r\n\r\n"),
    ("a bare carriage return in a traceparent", b"NATS/1.0\r\ntraceparent: 00-\r-01\r\n\r\n"),
    ("a header name with a space", b"NATS/1.0\r\nx note: 1\r\n\r\n"),
    ("a header name that is not ASCII", b"NATS/1.0\r\nx-gr\xc3\xb6\xc3\x9fe: 1\r\n\r\n"),
    ("a value that is not UTF-8", b"NATS/1.0\r\nbaggage: k=\xff\r\n\r\n"),
    ("a name that is not UTF-8", b"NATS/1.0\r\n\xff: 1\r\n\r\n"),
    ("a line without a colon", b"NATS/1.0\r\ntraceparent\r\n\r\n"),
    ("another version", b"NATS/9.9\r\nx-note: 1\r\n\r\n"),
    ("a status that is none", b"NATS/1.0 zz\r\n\r\n"),
];

/// How long a service may take to be back, or to say that it is not.
const RECOVERY: Duration = Duration::from_secs(60);

/// How long a message may take before another one is sent: on core NATS one that is sent meanwhile is lost.
const TRY: Duration = Duration::from_millis(500);

/// A service that hands the bodies it is given to the test, and is started again when it says that it cannot go on.
struct Service<H: Harness> {
    harness: H,
    spec: Spec,
    bodies: (mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>),
    running: tokio::task::JoinHandle<bool>,
    stop: mpsc::Sender<()>,
    ended: usize,
}

impl<H: Harness> Service<H> {
    async fn start(id: &str) -> Self {
        let harness = H::start(id).await;
        let spec = Spec::new(format!("{id}.in"), format!("{id}-1"));
        let bodies = mpsc::unbounded_channel();
        let (running, stop) = run(&harness, &spec, bodies.0.clone()).await;
        Self { harness, spec, bodies, running, stop, ended: 0 }
    }

    /// Sends messages until one is handled. A service that ended with an error is started again; silence is a failure.
    async fn answers(&mut self, outsider: &Outsider, what: &str) {
        let deadline = Instant::now() + RECOVERY;
        for number in 0.. {
            assert!(Instant::now() < deadline, "{what}: no error and no message within {RECOVERY:?}");
            if self.running.is_finished() {
                let failed = (&mut self.running).await.expect("the service does not panic");
                assert!(failed, "{what}: the service ended without an error");
                self.ended += 1;
                (self.running, self.stop) = run(&self.harness, &self.spec, self.bodies.0.clone()).await;
            }
            let body = format!("{what} {number}");
            outsider.send_by_client(self.spec.destination.clone(), HeaderMap::new(), body.into()).await;
            let until = Instant::now() + TRY;
            while let Ok(Some(handled)) = timeout_at(until, self.bodies.1.recv()).await {
                if handled.starts_with(what) {
                    return;
                }
            }
        }
    }

    async fn stop(self) {
        // A service that has just ended takes no word any more.
        let _ = self.stop.send(()).await;
        timeout(RECOVERY, self.running).await.expect("the service stops").expect("the service does not panic");
        self.harness.stop().await;
    }
}

/// Starts the service; the task returns whether it ended with an error.
async fn run<H: Harness>(
    harness: &H,
    spec: &Spec,
    bodies: mpsc::UnboundedSender<String>,
) -> (tokio::task::JoinHandle<bool>, mpsc::Sender<()>) {
    let handle = move |delivery: Delivery| {
        // The test has ended when nobody listens.
        let _ = bodies.send(String::from_utf8_lossy(delivery.payload()).into_owned());
        async {}
    };
    let app = App::new().subscribe(harness.subscription(spec), handle);
    let telemetry = TelemetryMiddleware::from(Capture::new().instrumentation().build());
    let (stop, mut stopped) = mpsc::channel(1);
    let running: Running =
        serve(harness.connect().await, app.telemetry(telemetry)).start().await.expect("the service starts");
    let ends = running.run_until(async move {
        let _ = stopped.recv().await;
    });
    (tokio::spawn(async move { ends.await.is_err() }), stop)
}

fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", now.as_micros(), std::process::id())
}

/// PROP-N-07: what breaks the client's connection is met by an error or by a new connection, never by silence, and what is
/// sent afterwards arrives.
async fn is_never_silent<H: Harness>(
    id: &str,
    outsider: impl AsyncFn(&str) -> Outsider,
    blocks: impl IntoIterator<Item = (String, Vec<u8>)>,
) {
    let id = format!("{id}-{}", unique());
    let mut service = Service::<H>::start(&id).await;
    let outsider = outsider(&server::url()).await;
    service.answers(&outsider, "before").await;
    for (what, block) in blocks {
        assert!(outsider.send_by_hand(&service.spec.destination, &block, b"broken").await, "{what}: taken");
        let before = service.ended;
        service.answers(&outsider, &what).await;
        assert_eq!(
            service.ended, before,
            "{what}: the connection that is lost is made again, and the service goes on (PROP-N-07)"
        );
    }
    service.stop().await;
}

fn breaking() -> impl Iterator<Item = (String, Vec<u8>)> {
    BREAKING.into_iter().map(|(what, block)| (what.to_owned(), block.to_vec()))
}

/// Sets that the suite holds back, from each class that has any.
fn held_back() -> impl Iterator<Item = (String, Vec<u8>)> {
    let sets = small_corpus(180).into_iter().filter(|set| native(set).is_none());
    let blocks = sets.map(|set| (set.class.to_string(), block(&set))).filter(|(_, block)| !is_readable(block));
    blocks.enumerate().map(|(number, (class, block))| (format!("{class} {number}"), block))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn core_nats_is_never_silent_about_headers_that_break_the_client() {
    let outsider = async |url: &str| Outsider::connect(url).await;
    is_never_silent::<CoreNats>("hostile-core", outsider, breaking()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn core_nats_is_never_silent_about_the_sets_that_are_held_back() {
    let outsider = async |url: &str| Outsider::connect(url).await;
    is_never_silent::<CoreNats>("hostile-held-back", outsider, held_back()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn jetstream_is_never_silent_about_headers_that_break_the_client() {
    let outsider = async |url: &str| Outsider::connect(url).await.into_stream();
    // A stream of its own for each: it keeps what nobody can read, and hands it out again and again.
    for (number, block) in breaking().enumerate() {
        is_never_silent::<JetStream>(&format!("hostile-stream-{number}"), outsider, [block]).await;
    }
}

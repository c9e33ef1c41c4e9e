//! The server: the shared one of the suite, and one of a test's own that can be killed and started again.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap};
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_nats::Instrumentation;
use throughline_testing::conformance::Message;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The name under which the suite connects: `messaging.client.id` (ATTR-N-07).
pub(crate) const CLIENT: &str = "conformance";

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Returns the address of the shared server; a missing one is a failure, never a skip.
pub(crate) fn url() -> String {
    match std::env::var("THROUGHLINE_NATS_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("THROUGHLINE_NATS_URL names no server: run `cargo xtask test --broker nats`, which starts one"),
    }
}

/// Returns host and port as they are configured (ATTR-C-17).
pub(crate) fn host_and_port(url: &str) -> (String, u16) {
    let address: async_nats::ServerAddr =
        url.parse().expect("THROUGHLINE_NATS_URL is an address such as nats://127.0.0.1:4222");
    (address.host().to_owned(), address.port())
}

pub(crate) fn options() -> ConnectOptions {
    ConnectOptions::new().name(CLIENT).connection_timeout(Duration::from_secs(5))
}

/// Describes a client to the raw door as its user would.
pub(crate) fn instrumentation(engine: Engine, url: &str, client: &Client) -> Instrumentation {
    let (host, port) = host_and_port(url);
    Instrumentation::from(engine).with_server(host, port).with_client_id(CLIENT).with_client(client)
}

pub(crate) fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(id) = &message.id {
        headers.insert("Nats-Msg-Id", id.as_str());
    }
    if let Some(id) = &message.correlation_id {
        headers.insert("correlation-id", id.as_str());
    }
    headers
}

/// The handle for a message that brings its own creation context.
pub(crate) fn supplied(otel: &Instrumentation, message: &Message) -> Instrumentation {
    match &message.supplied {
        Some(context) => otel.with_creation_context(CreationContext::Given(context.clone())),
        None => otel.clone(),
    }
}

/// Returns when the server knows everything the client has told it: the answer that nobody listens comes after.
pub(crate) async fn round_trip(client: &Client) {
    let nobody = client.new_inbox();
    let answered = timeout(PATIENCE, client.request(nobody, "".into())).await;
    assert!(answered.expect("an answer of the server").is_err(), "somebody listens to an inbox that nobody knows");
}

/// A server of one test on a free loopback port, with a data folder of its own. Dropped, it is killed and its data removed.
pub(crate) struct OwnServer {
    program: PathBuf,
    port: u16,
    data: PathBuf,
    child: Option<Child>,
}

impl OwnServer {
    pub(crate) async fn start(name: &str) -> Self {
        let program = std::env::var_os("THROUGHLINE_NATS_SERVER").map(PathBuf::from).unwrap_or_else(|| {
            panic!("THROUGHLINE_NATS_SERVER names no nats-server program: run `cargo xtask test --broker nats`, which finds one")
        });
        let free = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let port = free.local_addr().expect("the port").port();
        drop(free);
        let data = std::env::temp_dir().join(format!("throughline-{name}-{port}-{}", std::process::id()));
        let mut server = Self { program, port, data, child: None };
        server.run().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server, as a crash does.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the server is killed");
        }
    }

    /// Starts it again, on the same port and the same data.
    pub(crate) async fn run(&mut self) {
        let child = Command::new(&self.program)
            .args(["-a", "127.0.0.1", "-js", "-p", &self.port.to_string(), "-sd"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        self.child = Some(child);
        let accepts = async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), accepts).await.expect("the server accepts connections");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        drop(self.child.take());
        // What is left in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

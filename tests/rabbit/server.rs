//! The server: the shared one of the suite, and those of a test's own, which go away and come back.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use throughline_rabbit::{Rabbit, RabbitOptions};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

/// The name under which the suite connects: `messaging.client.id` (ATTR-R-13).
pub(crate) const CLIENT: &str = "conformance";

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a server of a test's own may take to start, and its tool to answer, while others run beside it.
const START_WITHIN: Duration = Duration::from_secs(180);

/// How long it may take to answer to a connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How many servers of tests run at a time: each of them wants two processors for itself when it starts.
const AT_A_TIME: usize = 3;

/// How long a queue of a test that failed is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(300);

/// Returns the address of the shared server; a missing one is a failure, never a skip.
pub(crate) fn url() -> String {
    match std::env::var("THROUGHLINE_RABBIT_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("THROUGHLINE_RABBIT_URL names no server: run `cargo xtask test --broker rabbit`, which starts one"),
    }
}

/// Returns host and port as they are configured (ATTR-C-17).
pub(crate) fn host_and_port(url: &str) -> (String, u16) {
    let address: lapin::uri::AMQPUri =
        url.parse().expect("THROUGHLINE_RABBIT_URL is an address such as amqp://127.0.0.1:5672");
    (address.authority.host, address.authority.port)
}

pub(crate) fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    format!("{name}-{:x}-{}", since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn connect() -> Rabbit {
    let options = RabbitOptions::new().name(CLIENT);
    Rabbit::connect_with(url(), options).await.expect("a connection to THROUGHLINE_RABBIT_URL")
}

/// The plain client, with a channel.
pub(crate) struct Plain {
    // Closed when it is dropped.
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl Plain {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a plain connection");
        let channel = connection.create_channel().await.expect("a channel");
        Self { _connection: connection, channel }
    }

    pub(crate) async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        table.insert("x-expires".into(), AMQPValue::LongLongInt(300_000));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, table).await.expect("a queue");
    }

    pub(crate) async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
    }

    /// Returns how many messages wait in a queue and how many consumers it has.
    pub(crate) async fn count(&self, queue: &str) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared =
            self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("the queue");
        (declared.message_count(), declared.consumer_count())
    }
}

/// A server of a test's own, with its data. It ends with the test. No test has two: it would wait for itself.
pub(crate) struct Server {
    _turn: SemaphorePermit<'static>,
    program: PathBuf,
    data: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        static TURNS: Semaphore = Semaphore::const_new(AT_A_TIME);
        let turn = TURNS.acquire().await.expect("it stays open");
        let program = std::env::var_os("THROUGHLINE_RABBIT_SERVER").map(PathBuf::from).unwrap_or_else(|| {
            panic!(
                "THROUGHLINE_RABBIT_SERVER names no program: run `cargo xtask test --broker rabbit`, which installs one"
            )
        });
        let data = std::env::temp_dir().join(unique("throughline-rabbit"));
        std::fs::create_dir_all(&data).expect("a folder for the data");
        let mut server = Self { _turn: turn, program, data, port: three_free_ports(), child: None };
        server.start_again().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server in order, as a deployment does.
    pub(crate) async fn stop(&mut self) {
        self.control(&["stop"]).await;
        let mut child = self.child.take().expect("the server runs");
        timeout(START_WITHIN, child.wait()).await.expect("the server ends in time").expect("the server ends");
    }

    /// Kills the server, as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.child.take().expect("the server runs").kill().await.expect("the server is killed");
        let deadline = Instant::now() + START_WITHIN;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
            assert!(Instant::now() < deadline, "the port is still open");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and the same data.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let child = self.child.insert(run(&self.program, &self.data, self.port));
        let (url, deadline) =
            (format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port), Instant::now() + START_WITHIN);
        loop {
            let connecting = Connection::connect(&url, ConnectionProperties::default());
            // A server that starts may take a connection and never answer on it.
            let answer = timeout(ANSWER_WITHIN, connecting).await;
            if matches!(answer, Ok(Ok(_))) {
                return;
            }
            let ended = child.try_wait().expect("the state of the server");
            if ended.is_some() || Instant::now() >= deadline {
                let log = std::fs::read_to_string(log(&self.data)).unwrap_or_default();
                panic!("the server at {url} is not ready: ended {ended:?}, {:?}; it said:\n{log}", answer.map(drop));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs `rabbitmqctl`, and returns what it says.
    pub(crate) async fn control(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let mut command = Command::new(&self.program);
        command.arg(&self.data).args([port.as_str(), "rabbitmqctl", "--quiet"]).args(arguments);
        let output = timeout(START_WITHIN, command.kill_on_drop(true).output()).await;
        let output = output.expect("an answer in time").expect("`rabbitmqctl` runs");
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until what `rabbitmqctl` says is so.
    pub(crate) async fn until(&self, arguments: &[&str], is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let said = self.control(arguments).await;
            if is_so(&said) {
                return;
            }
            assert!(Instant::now() < deadline, "rabbitmqctl {arguments:?} still says:\n{said}");
        }
    }

    /// Ends it, and removes its data.
    pub(crate) async fn remove(mut self) {
        self.kill().await;
        let deadline = Instant::now() + PATIENCE;
        while std::fs::remove_dir_all(&self.data).is_err() && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of a test that failed: the server is killed with its handle.
        if self.child.take().is_some() {
            let _ = std::fs::remove_dir_all(&self.data);
        }
    }
}

fn log(data: &Path) -> PathBuf {
    data.join("server.log")
}

fn run(program: &Path, data: &Path, port: u16) -> Child {
    let said = std::fs::File::options().create(true).append(true).open(log(data)).expect("a log");
    let mut command = Command::new(program);
    command.arg(data).args([port.to_string().as_str(), "rabbitmq-server"]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(said.try_clone().expect("the log once more")).stderr(said);
    command.spawn().expect("the server starts")
}

/// The server's and its node's; tests that run at the same time get others.
fn three_free_ports() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = 20_000 + u16::try_from(std::process::id() % 1_000).expect("a small number") * 9;
    loop {
        let port = begin + NEXT.fetch_add(3, Ordering::Relaxed) % 3_000;
        if (0..3).all(|next| free(port + next)) {
            return port;
        }
    }
}

//! A server of the test's own that goes away and comes back, under load: every message is counted by its id.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use throughline_core::broker::Broker;
use throughline_core::{App, Envelope, serve};
use throughline_rabbit::{PublishFailure, Queue, Rabbit, RabbitOptions};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::server::unique;

const PATIENCE: Duration = Duration::from_secs(60);
const MESSAGES: usize = 10_000;

/// A RabbitMQ of this test alone.
struct Server {
    program: PathBuf,
    data: PathBuf,
    port: u16,
    child: Child,
}

impl Server {
    async fn start() -> Self {
        let program = std::env::var_os("THROUGHLINE_RABBIT_SERVER").map(PathBuf::from).unwrap_or_else(|| {
            panic!(
                "THROUGHLINE_RABBIT_SERVER names no program: run `cargo xtask test --broker rabbit`, which installs one"
            )
        });
        let data = std::env::temp_dir().join(unique("throughline-rabbit"));
        std::fs::create_dir_all(&data).expect("a folder for the data");
        let port = three_free_ports();
        let child = run(&program, &data, port);
        let server = Self { program, data, port, child };
        server.ready().await;
        server
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Returns when a client can connect.
    async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout(PATIENCE, Connection::connect(&self.url(), ConnectionProperties::default())).await {
                Ok(Ok(_)) => return,
                _ if Instant::now() > deadline => panic!("RabbitMQ does not start"),
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn kill(&mut self) {
        self.child.kill().await.expect("the server is killed");
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
            assert!(Instant::now() < deadline, "the port is still open");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn start_again(&mut self) {
        self.child = run(&self.program, &self.data, self.port);
        self.ready().await;
    }

    async fn control(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let mut command = Command::new(&self.program);
        command.arg(&self.data).args([port.as_str(), "rabbitmqctl", "--quiet"]).args(arguments);
        let output = timeout(PATIENCE, command.output()).await.expect("an answer").expect("rabbitmqctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn stop(mut self) {
        self.kill().await;
        let deadline = Instant::now() + PATIENCE;
        while std::fs::remove_dir_all(&self.data).is_err() && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn run(program: &PathBuf, data: &PathBuf, port: u16) -> Child {
    let mut command = Command::new(program);
    command.arg(data).args([port.to_string().as_str(), "rabbitmq-server"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("the server starts")
}

fn three_free_ports() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    // Tests that run at the same time get others.
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

/// How often each message was handled.
type Seen = Arc<Mutex<HashMap<String, u32>>>;

/// What is done to the server while messages go through it.
#[derive(Clone, Copy)]
enum Fault {
    Kill,
    CloseConnections,
    Alarm,
}

/// R1, R4, R6, R8: two consumers and a publisher go on by themselves; what the publisher was told to be stored is handled.
async fn under_load(fault: Fault) {
    let mut server = Server::start().await;
    let queue = unique("load");
    let connect = async |name: &str| {
        Rabbit::connect_with(server.url(), RabbitOptions::new().name(name)).await.expect("a connection")
    };
    let (consuming, publishing) = (connect("consumers").await, connect("publisher").await);
    let seen = Seen::default();
    let mut running = Vec::new();
    for _ in 0..2 {
        let seen = Arc::clone(&seen);
        let handle = move |body: String| {
            *seen.lock().expect("no panic").entry(body).or_default() += 1;
            std::future::ready(())
        };
        let app = App::new().subscribe(Queue::new(queue.as_str()), handle);
        running.push(serve(consuming.clone(), app).start().await.expect("a service"));
    }
    let transport = publishing.transport();
    let (mut stored, mut unknown, mut not_sent) = (Vec::new(), 0, 0);
    for (number, chunk) in (0..MESSAGES).collect::<Vec<_>>().chunks(500).enumerate() {
        if number == 6 {
            match fault {
                Fault::Kill => {
                    server.kill().await;
                    server.start_again().await;
                }
                Fault::CloseConnections => drop(server.control(&["close_all_connections", "a test"]).await),
                Fault::Alarm => {
                    server.control(&["set_vm_memory_high_watermark", "0"]).await;
                    server.control(&["set_vm_memory_high_watermark", "0.6"]).await;
                }
            }
        }
        let ids: Vec<String> = chunk.iter().map(|id| id.to_string()).collect();
        let messages = ids.iter().map(|id| Envelope::new(queue.clone(), id.clone())).collect();
        for (id, result) in ids.into_iter().zip(transport.publish_batch(messages).await) {
            match result.map_err(|failed| (PublishFailure::of(&failed), failed)) {
                Ok(_) => stored.push(id),
                Err((Some(PublishFailure::MaybeStored), _)) => unknown += 1,
                Err((Some(PublishFailure::NotSent), _)) => not_sent += 1,
                Err((_, failed)) => panic!("{failed}"),
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let missing = || {
        let seen = seen.lock().expect("no panic");
        stored.iter().filter(|id| !seen.contains_key(*id)).count()
    };
    while missing() > 0 {
        assert!(Instant::now() < deadline, "{} of {} stored messages were never handled", missing(), stored.len());
        sleep(Duration::from_millis(50)).await;
    }
    let again: u32 = seen.lock().expect("no panic").values().map(|times| times - 1).sum();
    println!("stored {} unknown {unknown} not sent {not_sent} handled again {again}", stored.len());
    // R6: after it the server has just the consumers that there are.
    let consumers = server.control(&["list_queues", "name", "consumers", "messages_unacknowledged"]).await;
    let of_queue = consumers.lines().find(|line| line.starts_with(&queue)).expect("the queue").to_owned();
    assert_eq!(of_queue.split_whitespace().nth(1), Some("2"), "{of_queue}");
    for service in running {
        let _ = service.shutdown().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn nothing_is_lost_when_the_server_is_killed_and_started_again() {
    under_load(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn nothing_is_lost_when_connections_are_closed_by_the_management_command() {
    under_load(Fault::CloseConnections).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn nothing_is_lost_in_an_alarm() {
    under_load(Fault::Alarm).await;
}

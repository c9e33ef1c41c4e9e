//! The server: the shared one of the suite, and one of a test's own that can be killed and started again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::topics;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Until when the end of a subscription may take.
pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// How long a server may take: several start at once, each with a Java machine of its own.
const START_WITHIN: Duration = Duration::from_secs(90);

/// A small server that starts fast, and says on standard error what is wrong.
const JAVA_OPTIONS: [&str; 3] =
    ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];

/// Returns the bootstrap servers of the shared server; a missing one is a failure, never a skip.
pub(crate) fn url() -> String {
    match std::env::var("THROUGHLINE_KAFKA_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("THROUGHLINE_KAFKA_URL names no server: run `cargo xtask test --broker kafka`, which starts one"),
    }
}

/// A server of one test on a free loopback port, with a data folder of its own. Dropped, it is killed and its data removed.
pub(crate) struct Server {
    home: PathBuf,
    port: u16,
    data: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Returns when the server can be used; `name` is only for people who look at the folder.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, "").await
    }

    /// The same with settings that stand behind the others, and count instead of them.
    pub(crate) async fn start_with(name: &str, settings: &str) -> Self {
        let home = std::env::var_os("THROUGHLINE_KAFKA_HOME").map(PathBuf::from).unwrap_or_else(|| {
            panic!("THROUGHLINE_KAFKA_HOME names no folder with Kafka's jars: run `cargo xtask test --broker kafka`, which finds one")
        });
        // Both are held until both are known: two free ports, not one twice.
        let (client, controller) = (free_port(), free_port());
        let [port, controller_port] = [&client, &controller].map(|free| free.local_addr().expect("the port").port());
        drop((client, controller));
        let data = std::env::temp_dir().join(format!("throughline-{name}-{port}-{}", std::process::id()));
        fs::create_dir(&data).expect("a folder for the data");
        let mut server = Self { home, port, data, child: None };
        let all = properties(port, controller_port, &server.data) + settings;
        fs::write(server.properties(), all).expect("the settings");
        server.format().await;
        server.restart().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the server in order, as a deployment does.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let id = child.id().expect("the server runs").to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().await.expect("`kill` runs");
        assert!(told.success(), "the server cannot be told to end: {told}");
        timeout(PATIENCE, child.wait()).await.expect("the server ends in time").expect("the server ends")
    }

    /// Lets the server stand still: its connections stay, and nothing is answered.
    pub(crate) async fn freeze(&self) {
        let id = self.child.as_ref().and_then(Child::id).expect("the server runs").to_string();
        let told = Command::new("kill").args(["-STOP", &id]).status().await.expect("`kill` runs");
        assert!(told.success(), "the server cannot be stopped: {told}");
    }

    /// Kills the server, as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.child.take().expect("the server runs").kill().await.expect("the server is killed");
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and the same data.
    pub(crate) async fn restart(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let path = self.data.join("server.log");
        let log = File::options().create(true).append(true).open(&path).expect("a log");
        let child = Command::new("java")
            .args(self.java("kafka.Kafka"))
            .arg(self.properties())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log once more"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("`java` starts");
        let child = self.child.insert(child);
        let deadline = Instant::now() + START_WITHIN;
        let bootstrap = format!("127.0.0.1:{}", self.port);
        loop {
            let listed = topics::brokers(&bootstrap).await;
            if listed.as_ref().is_ok_and(|brokers| !brokers.is_empty()) {
                return;
            }
            let ended = child.try_wait().expect("the state of the server");
            if ended.is_some() || Instant::now() >= deadline {
                let log = fs::read_to_string(&path).unwrap_or_default();
                panic!("the server at {bootstrap} is not ready: ended {ended:?}, {listed:?}; it said:\n{log}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the folder a log of this cluster: a server does not start on an empty one.
    async fn format(&self) {
        let started = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_micros();
        let output = Command::new("java")
            .args(self.java("kafka.tools.StorageTool"))
            // 16 bytes in base64.
            .args(["format", "--standalone", "-t", &format!("{started:021x}A"), "-c"])
            .arg(self.properties())
            .output()
            .await
            .expect("`java` starts");
        assert!(output.status.success(), "no storage: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn java(&self, class: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = JAVA_OPTIONS.map(OsString::from).into();
        arguments.extend(["-cp".into(), self.home.join("libs").join("*").into(), class.into()]);
        arguments
    }

    fn properties(&self) -> PathBuf {
        self.data.join("server.properties")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Waited for: what still runs writes into the folder again.
            let _ = child.start_kill();
            while matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // What is left in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.data);
    }
}

fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free loopback port")
}

/// The settings of the shared server, see `xtask/src/servers/kafka/settings.rs`, and one more: who is killed may come
/// back when its session is over, which would be 9 s.
fn properties(port: u16, controller: u16, data: &Path) -> String {
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
",
        data = data.join("data").display()
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use tokio::net::TcpStream;

    use super::*;
    use crate::load::read;

    async fn publish(bootstrap: &str, topic: &str, body: &str) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a producer");
        let record = FutureRecord::<(), _>::to(topic).payload(body).partition(0);
        producer.send(record, PATIENCE).await.expect("the record is stored");
    }

    #[tokio::test]
    #[ignore = "needs Kafka: cargo xtask test --broker kafka"]
    async fn a_server_keeps_its_port_and_its_data_when_it_is_killed_and_when_it_is_stopped() {
        let mut server = Server::start("own-server").await;
        let bootstrap = server.url();
        assert_eq!(topics::brokers(&bootstrap).await.expect("an answer"), [1]);
        topics::create(&bootstrap, "kept", 2).await;
        publish(&bootstrap, "kept", "before the kill").await;

        server.kill().await;
        TcpStream::connect(&bootstrap).await.expect_err("nobody answers");
        server.restart().await;
        publish(&bootstrap, "kept", "before the stop").await;
        // 143 is how Java ends after SIGTERM, when all it had to do is done.
        assert_eq!(server.stop().await.code(), Some(143));
        server.restart().await;

        assert_eq!(server.url(), bootstrap);
        assert_eq!(read(&bootstrap, "kept", 2).await, ["before the kill", "before the stop"]);
    }
}

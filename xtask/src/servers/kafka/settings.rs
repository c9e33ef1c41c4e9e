//! How a local server is started: its settings, its formatted storage, its command line.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::tools;

use super::super::error::ServerError;
use super::super::local::free_address;
use super::install::Installed;

const FORMAT_WITHIN: Duration = Duration::from_secs(60);

/// A small server that starts fast, and says on standard error what is wrong.
const JAVA_OPTIONS: [&str; 3] =
    ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];

/// Fills the data folder of a new server and returns the arguments for `java` that start it.
pub(super) fn prepare(installed: &Installed, address: SocketAddr, data: &Path) -> Result<Vec<OsString>, ServerError> {
    let file = data.join("server.properties");
    fs::write(&file, properties(address, free_address()?, &data.join("data")))?;
    let mut format = java(installed, "kafka.tools.StorageTool");
    format.extend(["format", "--standalone", "-t"].map(OsString::from));
    format.extend([cluster_id().into(), "-c".into(), file.clone().into()]);
    tools::output(Command::new(&installed.java).args(format), FORMAT_WITHIN)?;
    let mut run = java(installed, "kafka.Kafka");
    run.push(file.into());
    Ok(run)
}

fn java(installed: &Installed, class: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = JAVA_OPTIONS.map(OsString::from).into();
    arguments.extend(["-cp".into(), installed.home.join("libs").join("*").into(), class.into()]);
    arguments
}

/// One node is broker and controller; what is otherwise kept three times is kept once. Groups do not wait for
/// more members, and a test may ask for a session that is short. Topics are made by who needs them.
fn properties(address: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{address},CONTROLLER://{controller}
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
",
        data = data.display()
    )
}

/// 16 bytes in the alphabet of base64, another one for each server: clients notice a cluster that is not theirs.
fn cluster_id() -> String {
    let started = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
    format!("{started:021x}A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_listens_is_on_loopback() {
        let (address, controller) = ("127.0.0.1:4001".parse().unwrap(), "127.0.0.1:4002".parse().unwrap());
        let text = properties(address, controller, Path::new("/data"));
        assert!(text.contains("\nlisteners=PLAINTEXT://127.0.0.1:4001,CONTROLLER://127.0.0.1:4002\n"), "{text}");
        assert!(text.contains("\nlog.dirs=/data\n"), "{text}");
        assert!(text.lines().all(|line| line.split_once('=').is_some_and(|(_, value)| !value.is_empty())), "{text}");
    }

    #[test]
    fn a_cluster_id_has_the_length_of_16_bytes_in_base64() {
        assert_eq!(cluster_id().len(), 22);
    }
}

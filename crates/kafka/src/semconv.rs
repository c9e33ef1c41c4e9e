use std::sync::{Arc, LazyLock};

use opentelemetry::{KeyValue, StringValue};
use throughline_core::message::{Operations, Source, System};
use throughline_core::telemetry::semconv::MESSAGING_DESTINATION_PARTITION_ID;

/// `messaging.system`.
// ATTR-S-02.
pub(crate) const SYSTEM: &str = "kafka";

// ATTR-K-05.
pub(crate) const KAFKA_OFFSET: &str = "messaging.kafka.offset";

// ATTR-K-04.
pub(crate) const KAFKA_MESSAGE_KEY: &str = "messaging.kafka.message.key";

// ATTR-K-06.
pub(crate) const KAFKA_MESSAGE_TOMBSTONE: &str = "messaging.kafka.message.tombstone";

// ATTR-K-07.
pub(crate) const KAFKA_CLUSTER_ID: &str = "messaging.kafka.cluster.id";

/// The port of a server that is configured without one, as the client has it.
const DEFAULT_PORT: u16 = 9092;

/// For how many partitions the text is kept.
const KEPT: i32 = 256;

/// What is settled is the position, whatever became of the message; a retry settles nothing.
// SPAN-07.
const OPERATIONS: Operations =
    Operations::DEFAULT.with_send("send").with_receive("poll").with_ack("commit").with_reject("commit");

/// Describes one connection.
pub(crate) fn system(server: Option<(&str, u16)>, client_id: Option<&str>, cluster_id: Option<&str>) -> Arc<System> {
    let mut system = System::new(SYSTEM, OPERATIONS).with_connection(server, client_id);
    if let Some(id) = cluster_id {
        system = system.with_attribute(KeyValue::new(KAFKA_CLUSTER_ID, Arc::<str>::from(id)));
    }
    Arc::new(system)
}

/// Describes a connection for a subscription that settles in transactions: what is to come again ends one too.
pub(crate) fn transactional(system: &System) -> Arc<System> {
    Arc::new(system.clone().with_operations(OPERATIONS.with_retry("abort")))
}

/// Describes what is read from. Topics are few and have names of their own, so a pattern is not their template: each message is shown
/// under its topic.
// ATTR-K-01, ATTR-K-03.
pub(crate) fn source(system: Arc<System>, only_topic: Option<&Arc<str>>, group: Option<&Arc<str>>) -> Source {
    let mut source = Source::new(system);
    if let Some(topic) = only_topic {
        source = source.with_destination(Arc::clone(topic));
    }
    if let Some(group) = group {
        source = source.with_group(Arc::clone(group));
    }
    source
}

/// Returns the host and port the user configured, unless they configured different ones.
// ATTR-C-17, ATTR-C-18.
pub(crate) fn server(bootstrap_servers: &str) -> Option<(String, u16)> {
    let mut servers = bootstrap_servers.split(',').map(str::trim).filter(|server| !server.is_empty()).map(address);
    let first = servers.next()??;
    servers.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// Takes `protocol://host:port` apart, of which only the host is needed; an IPv6 address stands in brackets.
fn address(server: &str) -> Option<(String, u16)> {
    let server = server.split_once("://").map_or(server, |(_, server)| server);
    let (host, port) = match server.strip_prefix('[').and_then(|server| server.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The partition as decimal text.
// ATTR-K-02.
pub(crate) fn partition_attribute(partition: i32) -> KeyValue {
    static TEXTS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| (0..KEPT).map(|partition| &*partition.to_string().leak()).collect());
    let kept = usize::try_from(partition).ok().and_then(|partition| TEXTS.get(partition));
    let text = kept.map_or_else(|| StringValue::from(partition.to_string()), |text| StringValue::from(*text));
    KeyValue::new(MESSAGING_DESTINATION_PARTITION_ID, text)
}

// ATTR-K-05.
pub(crate) fn offset_attribute(offset: i64) -> KeyValue {
    KeyValue::new(KAFKA_OFFSET, offset)
}

/// A key of more bytes is no attribute: who sends a message would choose how large its spans are.
const LONGEST_KEY: usize = 1_024;

/// A key that is text.
// ATTR-K-04.
pub(crate) fn key_attribute(key: &[u8]) -> Option<KeyValue> {
    if key.len() > LONGEST_KEY {
        return None;
    }
    std::str::from_utf8(key).ok().map(|key| KeyValue::new(KAFKA_MESSAGE_KEY, key.to_owned()))
}

/// Set only where it is true.
// ATTR-K-06.
pub(crate) fn tombstone_attribute() -> KeyValue {
    KeyValue::new(KAFKA_MESSAGE_TOMBSTONE, true)
}

#[cfg(test)]
mod tests {
    use opentelemetry::Value;

    use super::*;

    fn found(servers: &str) -> Option<(String, u16)> {
        server(servers)
    }

    fn at(host: &str, port: u16) -> Option<(String, u16)> {
        Some((host.to_owned(), port))
    }

    #[test]
    fn the_server_is_what_was_configured() {
        for (servers, expected) in [
            ("kafka:9093", at("kafka", 9093)),
            ("kafka", at("kafka", 9092)),
            (" 10.0.0.1:9094 ", at("10.0.0.1", 9094)),
            ("SASL_SSL://kafka:9093", at("kafka", 9093)),
            ("[::1]:9093", at("::1", 9093)),
            ("[::1]", at("::1", 9092)),
            ("kafka:9092,kafka", at("kafka", 9092)),
            ("kafka:9092,,", at("kafka", 9092)),
        ] {
            assert_eq!(found(servers), expected, "ATTR-C-17: {servers}");
        }
    }

    #[test]
    fn of_several_different_servers_none_is_named() {
        for servers in ["a:9092,b:9092", "a:9092,a:9093", "", ",", "a:port", ":9092", "a:9092,a:port"] {
            assert_eq!(found(servers), None, "ATTR-C-17: {servers}");
        }
    }

    #[test]
    fn the_verbs_are_those_of_kafka() {
        let system = system(None, None, None);
        let verbs = system.operations();
        assert_eq!((verbs.create, verbs.send, verbs.receive, verbs.process), ("create", "send", "poll", "process"));
        assert_eq!((verbs.ack, verbs.retry, verbs.reject), (Some("commit"), None, Some("commit")), "SPAN-07");
    }

    #[test]
    fn a_connection_is_described_by_what_is_known_of_it() {
        let known = system(Some(("localhost", 9092)), Some("stock"), Some("c1"));
        assert_eq!((known.name(), known.client_id()), ("kafka", Some("stock")), "ATTR-S-02, ATTR-K-08");
        assert_eq!(known.server(), Some(("localhost", Some(9092))), "ATTR-C-11, ATTR-C-12");
        assert_eq!(known.attributes(), [KeyValue::new("messaging.kafka.cluster.id", "c1")], "ATTR-K-07");
        let unknown = system(None, None, None);
        assert_eq!((unknown.client_id(), unknown.server(), unknown.attributes().len()), (None, None, 0));
    }

    #[test]
    fn a_partition_is_text() {
        for partition in [0, 1, 255, 256, 100_000, i32::MAX, -1] {
            let attribute = partition_attribute(partition);
            assert_eq!(attribute.key.as_str(), "messaging.destination.partition.id");
            assert_eq!(attribute.value, Value::from(partition.to_string()), "ATTR-K-02");
        }
    }

    #[test]
    fn a_key_that_is_not_text_is_no_attribute() {
        assert_eq!(key_attribute(b"k\xff"), None, "ATTR-K-04");
        assert!(key_attribute(&[b'k'; LONGEST_KEY]).is_some(), "ATTR-K-04");
        assert_eq!(key_attribute(&[b'k'; LONGEST_KEY + 1]), None, "nobody chooses how large a span is");
        assert_eq!(key_attribute(b"k1"), Some(KeyValue::new("messaging.kafka.message.key", "k1")), "ATTR-K-04");
    }
}

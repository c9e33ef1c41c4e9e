use rdkafka::ClientConfig;
use throughline_core::BrokerError;

use crate::config::{check_consumer_property, check_rebalance_timeout, raise_answer_limit};
use crate::error;
use crate::subscription::Topic;

/// How long the client waits before it fetches on after its queue was full. Its own default of a second leaves handlers without work:
/// they empty the queue sooner.
const QUEUE_BACKOFF: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// How often the client says how far it has fetched: the lag needs that where the end of a partition is no message.
const STATISTICS: (&str, &str) = ("statistics.interval.ms", "2000");

/// Makes the client's configuration of one subscription: that of the connection, what the subscription says, and what this crate
/// relies on.
pub(super) fn client_config(connection: &ClientConfig, topic: &Topic) -> Result<ClientConfig, BrokerError> {
    topic.check_names()?;
    let mut config = connection.clone();
    for (name, value) in [QUEUE_BACKOFF, STATISTICS] {
        if connection.get(name).is_none() {
            config.set(name, value);
        }
    }
    for (name, value) in &topic.properties {
        check_consumer_property(name, value)?;
        config.set(name, value);
    }
    raise_answer_limit(&mut config);
    match &topic.group {
        Some(group) => config.set("group.id", &**group),
        // The client wants one; nobody else joins it, and nothing is committed.
        None => config.set("group.id", format!("throughline-{:016x}", fastrand::u64(..))),
    };
    if let Some(id) = &topic.static_member {
        if topic.group.is_none() {
            return Err(BrokerError::configuration("a static member is one of a group: add `.group(..)`"));
        }
        config.set("group.instance.id", &**id);
    }
    if topic.is_pattern && !topic.partitions.is_empty() {
        return Err(error::property("partition", "a pattern has no partitions of its own: name the topic"));
    }
    config
        // Offsets are committed by this crate, when their messages are settled.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        // Where `start` says something else, it is asked for. The client itself begins anew where its place is gone from the server: then
        // at the first message that still exists.
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", topic.isolation.as_str())
        .set("partition.assignment.strategy", topic.assignment.as_str());
    if topic.group.is_some() {
        check_rebalance_timeout(&config, topic.rebalance_timeout)?;
    }
    Ok(config)
}

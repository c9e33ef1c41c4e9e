//! What the consumer tells telemetry by itself: commits in the background, and the lag.

use std::sync::{Arc, Weak};
use std::time::Instant;

use opentelemetry::KeyValue;
use rdkafka::error::KafkaError;
use throughline_core::broker::Observe;
use throughline_core::telemetry::semconv::{
    MESSAGING_CONSUMER_GROUP_NAME, MESSAGING_DESTINATION_NAME, MESSAGING_SYSTEM,
};
use tracing::warn;

use super::partition::Partition;
use super::shared::Shared;
use crate::error;
use crate::semconv::{SYSTEM, offset_attribute, partition_attribute};

/// The metric of the lag: how many messages of a partition are not settled yet.
const LAG: &str = "throughline.consumer.lag";

/// Records a commit of several messages (SPAN-33, ATTR-K-11).
pub(super) fn commit(
    shared: &Shared,
    started: Instant,
    positions: &[(Arc<Partition>, i64)],
    failed: Option<&KafkaError>,
) {
    let failed = failed.map(error::commit);
    if let Some(error) = &failed {
        warn!(partitions = positions.len(), %error, "offsets were not committed; they are with the next commit");
    }
    let Some(observer) = shared.observer() else { return };
    let mut topics = positions.iter().map(|(partition, _)| &*partition.topic);
    let destination = topics.next().filter(|first| topics.all(|other| other == *first));
    let attributes = match positions {
        [(partition, position)] => vec![
            partition_attribute(partition.number),
            // The offset of a message: the last one that is settled.
            offset_attribute(position - 1),
        ],
        _ => Vec::new(),
    };
    observer.settled(started, destination, attributes, failed.as_ref());
}

/// Lets the meter of the app ask for the lag, from what the client knows by itself.
pub(super) fn measure_lag(shared: &Arc<Shared>, observer: &dyn Observe) {
    let Some(meter) = observer.meter() else { return };
    // The meter keeps the callback for as long as it lives.
    let shared: Weak<Shared> = Arc::downgrade(shared);
    meter
        .i64_observable_gauge(LAG)
        .with_unit("{message}")
        .with_description("Messages of a partition between the last settled one and its end, as the client knows it.")
        .with_callback(move |gauge| {
            let Some(shared) = shared.upgrade() else { return };
            for partition in shared.partitions() {
                let Some(lag) = partition.lag() else { continue };
                let mut attributes = vec![
                    KeyValue::new(MESSAGING_SYSTEM, SYSTEM),
                    KeyValue::new(MESSAGING_DESTINATION_NAME, Arc::clone(&partition.topic)),
                    partition_attribute(partition.number),
                ];
                if let Some(group) = &shared.settings.group {
                    attributes.push(KeyValue::new(MESSAGING_CONSUMER_GROUP_NAME, Arc::clone(group)));
                }
                gauge.observe(lag, &attributes);
            }
        })
        .build();
}

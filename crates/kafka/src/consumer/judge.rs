//! What an error of the consumer means for its subscription, and what becomes of one whose topic is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use throughline_core::BrokerError;
use throughline_core::broker::BrokerErrorKind;
use tracing::{debug, error, info, warn};

use super::context::Context;
use crate::context::is_outage;
use crate::outage::Repeats;
use crate::subscription::Topic;
use crate::{error, lookup};

/// How long the check of a topic may take.
const METADATA_WAIT: Duration = Duration::from_secs(10);

/// How long a topic may be missing before its subscription ends: somebody may create it anew.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// How often it is looked for then, and how long a look may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Judges the errors of one consumer.
#[derive(Default)]
pub(super) struct Judge {
    repeats: Repeats<RDKafkaErrorCode>,
    missing: Repeats<Arc<str>>,
    /// Since when a topic may be gone, and when that was looked at last.
    suspicion: Option<Suspicion>,
}

#[derive(Clone, Copy)]
struct Suspicion {
    gone_since: Option<Instant>,
    looked: Option<Instant>,
}

impl Judge {
    /// Decides whether an error ends the subscription; what the client mends by itself does not.
    pub(super) fn judge(&mut self, failed: &KafkaError, topic: &Topic) -> Result<(), BrokerError> {
        use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition};
        if ends(failed) {
            return Err(error::ended(failed));
        }
        let code = failed.rdkafka_error_code();
        if let Some(UnknownPartition | UnknownTopic | UnknownTopicId | UnknownTopicOrPartition) = code {
            self.suspicion.get_or_insert(Suspicion { gone_since: None, looked: None });
        }
        if is_outage(failed) {
            // The client's context says it.
            debug!(error = %failed, "the consumer goes on after an error");
        } else if let Some(left_out) = self.repeats.admit(code.unwrap_or(RDKafkaErrorCode::Unknown)) {
            let (group, topics) = (topic.group.as_deref(), &topic.names);
            warn!(group, ?topics, left_out, error = %failed, "the consumer goes on after an error");
        }
        Ok(())
    }

    /// Looks whether the topics are still there, where the brokers said that one may not be. One that stays away ends the subscription.
    pub(super) fn look(&mut self, consumer: &BaseConsumer<Context>, topic: &Topic) -> Result<(), BrokerError> {
        let Some(suspicion) = &mut self.suspicion else { return Ok(()) };
        let now = Instant::now();
        if suspicion.looked.is_some_and(|looked| now.duration_since(looked) < LOOK_EVERY) {
            return Ok(());
        }
        suspicion.looked = Some(now);
        // A pattern has the topics that there are.
        let names = if topic.is_pattern { Vec::new() } else { topic.all_names()? };
        let mut missing = Vec::new();
        for name in names {
            match lookup::exists(consumer.client(), &name, LOOK_EVERY) {
                Some(true) => {}
                Some(false) => missing.push(name),
                // Nobody answers: nothing is known.
                None => return Ok(()),
            }
        }
        if missing.is_empty() {
            if suspicion.gone_since.is_some() {
                info!(group = topic.group.as_deref(), topics = ?topic.names, "all topics of the subscription are there again");
            }
            self.suspicion = None;
            self.missing.forget();
            return Ok(());
        }
        let gone_since = *suspicion.gone_since.get_or_insert(now);
        for name in &missing {
            if let Some(left_out) = self.missing.admit(Arc::clone(name)) {
                let group = topic.group.as_deref();
                error!(topic = &**name, group, left_out, "a topic of the subscription is gone: create it again");
            }
        }
        // Without a retry topic messages are tried again in place.
        match missing.iter().find(|name| !topic.is_retry_topic(name)) {
            Some(name) if gone_since.elapsed() >= GONE_AFTER => Err(error::topic_gone(name)),
            _ => Ok(()),
        }
    }
}

fn ends(failed: &KafkaError) -> bool {
    match failed {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::InconsistentGroupProtocol
                | RDKafkaErrorCode::FencedInstanceId
                | RDKafkaErrorCode::InvalidGroupId
                // The client would go on behind messages that it cannot read: compressed in a way it was built without, or damaged.
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::UnsupportedCompressionType
        ),
        _ => false,
    }
}

/// Fails where there is no such topic, instead of a subscription that stays silent.
pub(super) fn check_topic(consumer: &BaseConsumer<Context>, name: &str, partitions: &[i32]) -> Result<(), BrokerError> {
    let metadata = consumer
        .fetch_metadata(Some(name), METADATA_WAIT)
        .map_err(|failed| error::broker(&format!("cannot look up topic `{name}`"), &failed))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Err(error::unknown_topic(name));
    };
    if let Some(code) = topic.error().map(RDKafkaErrorCode::from) {
        if lookup::is_missing(code) {
            return Err(error::unknown_topic(name));
        }
        let failed = KafkaError::MetadataFetch(code);
        return Err(error::broker(&format!("cannot subscribe to topic `{name}`"), &failed));
    }
    let missing = partitions.iter().find(|number| !topic.partitions().iter().any(|known| known.id() == **number));
    match missing {
        Some(number) => Err(BrokerError::new(
            BrokerErrorKind::NotFound,
            "UNKNOWN_TOPIC_OR_PARTITION",
            format!("topic `{name}` has no partition {number}; it has {}", topic.partitions().len()),
        )),
        None => Ok(()),
    }
}

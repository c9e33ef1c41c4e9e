use rdkafka::ClientConfig;
use throughline_core::BrokerError;

use crate::subscription::{Isolation, Topic};
use crate::{config, error};

/// Makes the configuration of the producer of a subscription's transactions: that of the connection, with what the subscription adds.
pub(super) fn producer(connection: &ClientConfig, topic: &Topic, id: &str) -> Result<ClientConfig, BrokerError> {
    check(topic, id)?;
    let mut given = connection.clone();
    for (name, value) in &topic.properties {
        given.set(name, value);
    }
    let mut config = config::producer(&given)?;
    let native = config.create_native_config().map_err(|failed| config::unusable(&failed))?;
    if native.get("enable.idempotence").is_ok_and(|value| value == "false") {
        return Err(error::property(
            "enable.idempotence",
            "transactions are made of idempotent messages: leave it away",
        ));
    }
    config.set("transactional.id", id);
    Ok(config)
}

/// Refuses what cannot be exactly once.
fn check(topic: &Topic, id: &str) -> Result<(), BrokerError> {
    let why = if id.is_empty() {
        "the id is empty: give each process of the group one of its own"
    } else if topic.group.is_none() {
        "the place is kept by a group: add `.group(..)`"
    } else if topic.isolation == Isolation::ReadUncommitted {
        "messages of transactions that are aborted later would be handled: leave `.isolation(..)` away"
    } else {
        return Ok(());
    };
    Err(refused(why))
}

/// Says why a subscription cannot be exactly once.
pub(super) fn refused(why: &str) -> BrokerError {
    BrokerError::configuration(format!("the subscription cannot be exactly once: {why}"))
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::BrokerErrorKind;

    use super::*;

    fn with(topic: &Topic, id: &str) -> Result<ClientConfig, BrokerError> {
        let mut connection = ClientConfig::new();
        connection.set("bootstrap.servers", "localhost:9092");
        producer(&connection, topic, id)
    }

    #[test]
    fn a_transaction_has_the_id_and_the_properties_of_its_subscription() {
        let topic = Topic::new("orders").group("billing").property("transaction.timeout.ms", "5000");
        let config = with(&topic, "billing-1").unwrap();
        assert_eq!(config.get("transactional.id"), Some("billing-1"));
        assert_eq!(config.get("transaction.timeout.ms"), Some("5000"));
    }

    #[test]
    fn what_cannot_be_exactly_once_is_refused() {
        let topic = || Topic::new("orders").group("billing");
        for (topic, id, named) in [
            (Topic::new("orders"), "billing-1", "group"),
            (topic(), "", "id"),
            (topic().isolation(Isolation::ReadUncommitted), "billing-1", "isolation"),
            (topic().property("enable.idempotence", "false"), "billing-1", "enable.idempotence"),
            (topic().property("transactional.id", "mine"), "billing-1", "transactional.id"),
        ] {
            let error = with(&topic, id).unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Configuration);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

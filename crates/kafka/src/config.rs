use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use throughline_core::BrokerError;
use tracing::{Level, enabled};

use crate::error;
use crate::names::check_text;

/// The client's default of `message.timeout.ms`.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest `linger.ms`: the flush of `rdkafka` waits it out, and a shutdown waits for the flush.
const MAX_LINGER_MILLIS: f64 = 5_000.0;

/// What a producer has unless the user says otherwise, by all names of the property.
const PRODUCER_DEFAULTS: &[(&[&str], &str)] = &[
    // Sent again after a lost answer, a message is stored once and in its place.
    (&["enable.idempotence"], "true"),
    // A caller who awaits each message pays this wait every time. Without it, messages that come while an earlier request
    // is under way still share the next one.
    (&["linger.ms", "queue.buffering.max.ms"], "0"),
    // How long a publish to a topic that does not exist waits for it to appear; the client's 30 s are long for a mistyped
    // name, and one that was just created is known sooner.
    (&["topic.metadata.propagation.max.ms"], "5000"),
    // How large a message may be is the topic's to say: the client's 1,000,000 are less than a topic's default, so that a message
    // that was read could not be forwarded. A larger request than this the broker does not answer, it closes the connection.
    (&["message.max.bytes"], LARGEST_MESSAGE),
    // Tells when brokers are back, for the log.
    (&["statistics.interval.ms"], "5000"),
];

/// A little less than the largest request that a broker reads (its `socket.request.max.bytes` is 104,857,600 by default), so that names
/// and framing have room.
const LARGEST_MESSAGE: &str = "104792064";

/// The largest answer that a consumer reads: the largest message that a broker takes by default must fit, the client's 100,000,000 are
/// less. Memory is taken for what comes, not for this.
const LARGEST_ANSWER: (&str, &str) = ("receive.message.max.bytes", "209715200");

/// The properties of which one must not be below the other in a consumer. The client fits them to each other where the user sets one.
const SIZES: [&str; 3] = ["fetch.max.bytes", "message.max.bytes", LARGEST_ANSWER.0];

/// Lets a consumer read what a producer may publish, unless the user sets a limit.
pub(crate) fn raise_answer_limit(config: &mut ClientConfig) {
    if SIZES.iter().all(|name| config.get(name).is_none()) {
        config.set(LARGEST_ANSWER.0, LARGEST_ANSWER.1);
    }
}

/// Makes the configuration of the producer: what the user gave, checked, and the defaults.
pub(crate) fn producer(given: &ClientConfig) -> Result<ClientConfig, BrokerError> {
    let mut config = given.clone();
    for (names, value) in PRODUCER_DEFAULTS {
        if names.iter().all(|name| given.get(name).is_none()) {
            config.set(names[0], *value);
        }
    }
    check_producer(given, &config)?;
    Ok(config)
}

/// Refuses what would break a promise of the publisher, and what the client does not know.
fn check_producer(given: &ClientConfig, config: &ClientConfig) -> Result<(), BrokerError> {
    // The client reads the values here, so that `t` is `true`.
    let native = config.create_native_config().map_err(|failed| unusable(&failed))?;
    let is = |name: &str, value: &str| native.get(name).is_ok_and(|found| found == value);
    if is("delivery.report.only.error", "true") {
        return Err(error::property(
            "delivery.report.only.error",
            "a publish returns when the broker has confirmed the message, and would wait for ever",
        ));
    }
    if given.get("transactional.id").is_some() {
        return Err(error::property("transactional.id", "it belongs to a subscription that processes exactly once"));
    }
    let linger = native.get("linger.ms").ok().and_then(|millis| millis.parse::<f64>().ok());
    if linger.is_some_and(|millis| millis > MAX_LINGER_MILLIS) {
        return Err(error::property(
            "linger.ms",
            "over 5000, what is published last would not be sent before a shutdown gives up: a flush does not cut it short",
        ));
    }
    let acks = given.get("acks").or(given.get("request.required.acks")).unwrap_or("all");
    if is("enable.idempotence", "true") && !matches!(acks, "all" | "-1") {
        return Err(error::property(
            "acks",
            "an idempotent producer needs all replicas to confirm: leave it away, or set `enable.idempotence` to false, \
             and a message that is sent again may be stored twice",
        ));
    }
    Ok(())
}

/// Returns how long the client tries to deliver a message; `None` is for ever.
pub(crate) fn message_timeout(config: &ClientConfig) -> Option<Duration> {
    let given = config.get("message.timeout.ms").or(config.get("delivery.timeout.ms"));
    match given.map(str::parse) {
        Some(Ok(millis)) => (millis > 0).then_some(Duration::from_millis(millis)),
        // A wrong value the client has refused.
        Some(Err(_)) | None => Some(MESSAGE_TIMEOUT),
    }
}

/// Refuses a property of a consumer that would break a promise of a subscription, or for which a subscription has a method.
/// The same value as the subscription's own is allowed.
pub(crate) fn check_consumer_property(name: &str, value: &str) -> Result<(), BrokerError> {
    const OFFSETS: &str = "an offset is committed when its message and all before it are settled, by the subscription";
    const METHOD: &str = "the subscription has a method for it: see `Topic`";
    let is_false = matches!(value, "false" | "f" | "0");
    let why = match name {
        "auto.commit.enable" | "enable.auto.commit" | "enable.auto.offset.store" if !is_false => OFFSETS,
        "offset.store.method" | "offset.store.path" | "offset.store.sync.interval.ms" => OFFSETS,
        "enable.partition.eof" if !is_false => "the end of a partition would end the subscription as an error",
        "auto.offset.reset"
        | "group.id"
        | "group.instance.id"
        | "isolation.level"
        | "partition.assignment.strategy" => METHOD,
        _ if name.starts_with("go.") => "it is a property of the client for Go",
        _ => return Ok(()),
    };
    Err(error::property(name, why))
}

/// The client's own default of `max.poll.interval.ms`.
const POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Returns within which time a consumer polls again, before its group counts it as gone.
pub(crate) fn poll_interval(config: &ClientConfig) -> Duration {
    let millis = config.get("max.poll.interval.ms").and_then(|millis| millis.parse().ok());
    millis.map_or(POLL_INTERVAL, Duration::from_millis)
}

/// Refuses a wait for handlers in a rebalance during which the group would throw the member out: the thread that polls is the one
/// that waits.
pub(crate) fn check_rebalance_timeout(config: &ClientConfig, limit: Duration) -> Result<(), BrokerError> {
    // The client knows its own default.
    let native = config.create_native_config().map_err(|failed| unusable(&failed))?;
    let interval = native.get("max.poll.interval.ms").ok().and_then(|millis| millis.parse().ok());
    let Some(interval) = interval.map(Duration::from_millis).filter(|interval| limit >= *interval) else {
        return Ok(());
    };
    Err(BrokerError::configuration(format!(
        "the `rebalance_timeout` of {limit:?} is not below `max.poll.interval.ms`, which is {interval:?}: the client does not poll \
         while a rebalance waits for handlers, and the group would throw it out before they are done; shorten the one or raise \
         the other with `.property(..)`"
    )))
}

/// Checks what a user gave for all clients of a connection.
pub(crate) fn check(given: &ClientConfig) -> Result<(), BrokerError> {
    if given
        .get("bootstrap.servers")
        .or(given.get("metadata.broker.list"))
        .is_none_or(|servers| servers.trim().is_empty())
        && given.get("test.mock.num.brokers").is_none()
    {
        return Err(BrokerError::configuration(
            "no server is named: set `bootstrap.servers` to one or several `host:port`, with commas between them",
        ));
    }
    if let Some(id) = given.get("client.id") {
        check_text("the property `client.id`", id)?;
    }
    given.config_map().into_iter().try_for_each(|(name, value)| check_consumer_property(name, value))
}

/// Says why the client refused its configuration, without a value: it may be a secret.
pub(crate) fn unusable(failed: &KafkaError) -> BrokerError {
    match failed {
        // The client's text names the property and, for those that are no secrets, the value.
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => {
            error::property(name, "the client does not take its value")
        }
        KafkaError::ClientConfig(_, why, name, _) => error::property(name, why),
        KafkaError::ClientCreation(why) => {
            BrokerError::configuration(format!("no client with these properties: {why}"))
        }
        KafkaError::Nul(_) => BrokerError::configuration("a property has a zero byte in its name or value: remove it"),
        failed => error::broker("no client could be made", failed),
    }
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "pem", "sasl.jaas", "sasl.oauthbearer"].iter().any(|part| name.contains(part))
}

/// Returns how much the client logs: as much as `tracing` takes from it, and never less than the user set.
pub(crate) fn log_level(given: &ClientConfig) -> rdkafka::config::RDKafkaLogLevel {
    use rdkafka::config::RDKafkaLogLevel::{Debug, Error, Info, Warning};
    let taken = if enabled!(target: "rdkafka", Level::DEBUG) {
        Debug
    } else if enabled!(target: "rdkafka", Level::INFO) {
        Info
    } else if enabled!(target: "rdkafka", Level::WARN) {
        Warning
    } else {
        Error
    };
    if given.log_level as i32 > taken as i32 { given.log_level } else { taken }
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::BrokerErrorKind;

    use super::*;

    fn config(properties: &[(&str, &str)]) -> ClientConfig {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        [("bootstrap.servers", "localhost:9092")].iter().chain(properties).map(owned).collect()
    }

    fn refused(properties: &[(&str, &str)]) -> BrokerError {
        let error = producer(&config(properties)).unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Configuration);
        error
    }

    #[test]
    fn a_producer_is_idempotent_and_does_not_wait_for_more() {
        let config = producer(&config(&[])).unwrap();
        assert_eq!((config.get("enable.idempotence"), config.get("linger.ms")), (Some("true"), Some("0")));
    }

    #[test]
    fn a_limit_of_the_user_for_messages_counts() {
        let own = producer(&config(&[("message.max.bytes", "5000")])).unwrap();
        assert_eq!(own.get("message.max.bytes"), Some("5000"));
        let mut given = config(&[("message.max.bytes", "500000000")]);
        raise_answer_limit(&mut given);
        assert_eq!(given.get(LARGEST_ANSWER.0), None, "the client fits its own limit to it");
        assert!(given.create_native_config().is_ok());
    }

    #[test]
    fn what_the_user_says_counts_by_any_name_of_the_property() {
        let config =
            producer(&config(&[("enable.idempotence", "false"), ("acks", "1"), ("queue.buffering.max.ms", "7")]));
        let config = config.unwrap();
        assert_eq!((config.get("enable.idempotence"), config.get("acks")), (Some("false"), Some("1")));
        assert_eq!((config.get("linger.ms"), config.get("queue.buffering.max.ms")), (None, Some("7")));
    }

    #[test]
    fn a_property_that_does_not_exist_is_named() {
        assert!(refused(&[("linger.millis", "1")]).to_string().contains("linger.millis"));
        assert!(refused(&[("linger.ms", "soon")]).to_string().contains("linger.ms"));
    }

    #[test]
    fn what_would_break_a_promise_of_the_publisher_is_refused() {
        for (name, value) in [
            ("delivery.report.only.error", "true"),
            ("transactional.id", "shop"),
            ("acks", "1"),
            ("acks", "0"),
            ("linger.ms", "5001"),
        ] {
            assert!(refused(&[(name, value)]).to_string().contains(name), "{name}");
        }
        for all in ["all", "-1"] {
            assert!(producer(&config(&[("acks", all)])).is_ok(), "{all}");
        }
    }

    #[test]
    fn a_message_waits_for_room_as_long_as_it_may_take() {
        for (properties, expected) in [
            (&[][..], Some(MESSAGE_TIMEOUT)),
            (&[("message.timeout.ms", "700")], Some(Duration::from_millis(700))),
            (&[("delivery.timeout.ms", "700")], Some(Duration::from_millis(700))),
            (&[("message.timeout.ms", "0")], None),
        ] {
            assert_eq!(message_timeout(&config(properties)), expected, "{properties:?}");
        }
    }

    #[test]
    fn a_secret_is_in_no_error() {
        let failed = config(&[("ssl.key.pem", "s3cret\0")]).create_native_config().map(drop).unwrap_err();
        let error = unusable(&failed);
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }

    #[test]
    fn what_would_break_a_promise_of_a_subscription_is_refused() {
        for (name, value) in [
            ("enable.auto.offset.store", "true"),
            ("enable.auto.commit", "true"),
            ("auto.commit.enable", "true"),
            ("offset.store.method", "file"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
            ("group.id", "stock"),
            ("group.instance.id", "stock-1"),
            ("isolation.level", "read_committed"),
            ("partition.assignment.strategy", "range"),
            ("go.logs.channel.enable", "true"),
        ] {
            let error = check_consumer_property(name, value).unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Configuration);
            assert!(error.to_string().contains(name), "{error}");
            assert!(check(&config(&[(name, value)])).is_err(), "{name} is refused for the connection too");
        }
        for (name, value) in
            [("max.poll.interval.ms", "60000"), ("fetch.min.bytes", "1"), ("enable.auto.commit", "false")]
        {
            assert!(check_consumer_property(name, value).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_rebalance_waits_for_less_time_than_the_group_waits_for_a_poll() {
        let second = Duration::from_secs(1);
        for (properties, limit, is_taken) in [
            (&[][..], 299 * second, true),
            (&[], 300 * second, false),
            (&[("max.poll.interval.ms", "60000")], 59 * second, true),
            (&[("max.poll.interval.ms", "60000")], 60 * second, false),
            (&[("max.poll.interval.ms", "900000")], 300 * second, true),
            (&[], Duration::MAX, false),
        ] {
            let checked = check_rebalance_timeout(&config(properties), limit);
            assert_eq!(checked.is_ok(), is_taken, "{properties:?} {limit:?}");
            let Err(error) = checked else { continue };
            assert_eq!(error.kind(), BrokerErrorKind::Configuration);
            assert!(error.to_string().contains("max.poll.interval.ms"), "{error}");
        }
    }

    #[test]
    fn a_connection_needs_a_server() {
        assert_eq!(check(&ClientConfig::new()).unwrap_err().kind(), BrokerErrorKind::Configuration);
    }
}

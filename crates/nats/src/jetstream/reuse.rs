use std::fmt::Debug;

use async_nats::jetstream::consumer::{Config, Info};
use throughline_core::BrokerError;
use throughline_core::broker::BrokerErrorKind;

use crate::{Stream, error};

/// A field of a consumer that is not as the subscription wants it.
#[derive(Debug)]
pub(super) struct Contradiction {
    field: &'static str,
    has: String,
    wanted: String,
}

impl Contradiction {
    fn new(field: &'static str, has: impl Debug, wanted: impl Debug) -> Self {
        Self { field, has: format!("{has:?}"), wanted: format!("{wanted:?}") }
    }

    /// The error when the consumer was there before.
    pub(super) fn reused(&self, stream: &Stream, consumer: &str) -> BrokerError {
        let Self { field, has, wanted } = self;
        BrokerError::configuration(format!(
            "consumer {consumer} of stream {} exists with {field} {has}, wanted is {wanted}: \
             change one of them, delete the consumer, or choose another durable name",
            stream.name
        ))
    }

    /// A push consumer without a group that another service receives from: each would get every message.
    pub(super) fn bound(info: &Info) -> Option<Self> {
        let is_taken = info.push_bound && info.config.deliver_group.is_none();
        is_taken.then(|| Self::new("a push subscription", "of another service", "one with a deliver group"))
    }

    /// The error when the server made something else of what it was asked for.
    pub(super) fn not_created(&self, stream: &Stream, consumer: &str) -> BrokerError {
        let Self { field, has, wanted } = self;
        BrokerError::new(
            BrokerErrorKind::Unsupported,
            error::OTHER,
            format!(
                "the server made {field} {has} of {wanted} for consumer {consumer} of stream {}: \
                 use a newer nats-server (several filters need 2.10), or ask for less",
                stream.name
            ),
        )
    }
}

/// Returns what contradicts the subscription; what it leaves open may be anything.
pub(super) fn contradiction(wanted: &Config, info: &Info, stream: &Stream) -> Option<Contradiction> {
    let has = &info.config;
    let (has_filters, wanted_filters) = (filters(has), filters(wanted));
    if has_filters != wanted_filters {
        return Some(Contradiction::new("filter", has_filters, wanted_filters));
    }
    if has.ack_policy != wanted.ack_policy {
        return Some(Contradiction::new("ack policy", has.ack_policy, wanted.ack_policy));
    }
    if has.deliver_subject.is_some() != stream.push {
        let mode = |push| if push { "push" } else { "pull" };
        return Some(Contradiction::new("mode", mode(!stream.push), mode(stream.push)));
    }
    if has.headers_only != wanted.headers_only {
        let what = |headers_only| if headers_only { "headers only" } else { "whole messages" };
        return Some(Contradiction::new("deliveries", what(has.headers_only), what(wanted.headers_only)));
    }
    if has.deliver_group != wanted.deliver_group {
        return Some(Contradiction::new("deliver group", &has.deliver_group, &wanted.deliver_group));
    }
    if stream.start.is_some() && has.deliver_policy != wanted.deliver_policy {
        return Some(Contradiction::new("start position", has.deliver_policy, wanted.deliver_policy));
    }
    if stream.ack_wait.is_some_and(|wait| has.ack_wait != wait) {
        return Some(Contradiction::new("ack wait", has.ack_wait, wanted.ack_wait));
    }
    if stream.max_ack_pending.is_some_and(|messages| has.max_ack_pending != messages) {
        return Some(Contradiction::new("max ack pending", has.max_ack_pending, wanted.max_ack_pending));
    }
    if stream.max_deliver.is_some_and(|deliveries| has.max_deliver != deliveries) {
        return Some(Contradiction::new("max deliver", has.max_deliver, wanted.max_deliver));
    }
    None
}

fn filters(config: &Config) -> Vec<&str> {
    let mut filters: Vec<&str> = config.filter_subjects.iter().map(String::as_str).collect();
    if !config.filter_subject.is_empty() {
        filters.push(&config.filter_subject);
    }
    filters.sort_unstable();
    filters
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::datetime;
    use async_nats::jetstream::consumer::{AckPolicy, SequenceInfo};

    use super::*;

    fn explicit() -> Config {
        Config { durable_name: Some("stock".to_owned()), ..Config::default() }
    }

    fn info(config: Config) -> Info {
        let sequence = SequenceInfo { consumer_sequence: 0, stream_sequence: 0, last_active: None };
        Info {
            stream_name: "ORDERS".to_owned(),
            name: "stock".to_owned(),
            created: datetime::now(),
            config,
            delivered: sequence,
            ack_floor: sequence,
            num_ack_pending: 0,
            num_redelivered: 0,
            num_waiting: 0,
            num_pending: 0,
            cluster: None,
            push_bound: false,
        }
    }

    fn field(has: Config, wanted: Config, stream: &Stream) -> Option<&'static str> {
        contradiction(&wanted, &info(has), stream).map(|found| found.field)
    }

    #[test]
    fn what_the_subscription_leaves_open_may_be_anything() {
        let has = Config { ack_wait: Duration::from_secs(7), max_ack_pending: 7, max_deliver: 7, ..explicit() };
        assert_eq!(field(has, explicit(), &Stream::new("ORDERS")), None);
    }

    #[test]
    fn the_field_that_contradicts_is_named() {
        let stream = Stream::new("ORDERS");
        let wait = Duration::from_secs(7);
        let filtered = |subject: &str| Config { filter_subject: subject.to_owned(), ..explicit() };
        assert_eq!(field(filtered("a"), filtered("b"), &stream), Some("filter"));
        assert_eq!(field(filtered("a"), explicit(), &stream), Some("filter"));
        assert_eq!(
            field(Config { ack_policy: AckPolicy::None, ..explicit() }, explicit(), &stream),
            Some("ack policy")
        );
        assert_eq!(field(explicit(), explicit(), &stream.clone().push()), Some("mode"));
        let waits = Config { ack_wait: wait, ..explicit() };
        assert_eq!(field(explicit(), waits, &stream.clone().ack_wait(wait)), Some("ack wait"));
        let bounded = Config { max_ack_pending: 5, ..explicit() };
        assert_eq!(field(explicit(), bounded, &stream.clone().max_ack_pending(5)), Some("max ack pending"));
        let headers_only = Config { headers_only: true, ..explicit() };
        assert_eq!(field(headers_only.clone(), explicit(), &stream), Some("deliveries"));
        assert_eq!(field(explicit(), headers_only.clone(), &stream), Some("deliveries"));
        assert_eq!(field(headers_only.clone(), headers_only, &stream), None);
    }

    #[test]
    fn the_order_and_form_of_filters_do_not_matter() {
        let one = Config { filter_subjects: vec!["a".to_owned(), "b".to_owned()], ..explicit() };
        let other = Config { filter_subjects: vec!["b".to_owned(), "a".to_owned()], ..explicit() };
        assert_eq!(field(one, other, &Stream::new("ORDERS")), None);
    }
}

//! A message that waits for its next attempt in a delay queue: what is copied, and what the copy says when it comes back.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use throughline_core::broker::{RETRY_ATTEMPT, RETRY_ERROR};

use crate::carrier::{HeaderExtractor, is_passed_on};
use crate::death;
use crate::properties::{PERSISTENT, Text, copied};

/// The headers that say by which exchange and routing key the message came at first: the copy comes back by the default exchange.
const RETRY_EXCHANGE: &str = "retry-exchange";
const RETRY_KEY: &str = "retry-routing-key";

/// What a copy keeps beside headers, priority and time: not the expiration and the user.
const KEPT: [Text; 8] = [
    (BasicProperties::content_type, BasicProperties::with_content_type),
    (BasicProperties::content_encoding, BasicProperties::with_content_encoding),
    (BasicProperties::correlation_id, BasicProperties::with_correlation_id),
    (BasicProperties::reply_to, BasicProperties::with_reply_to),
    (BasicProperties::message_id, BasicProperties::with_message_id),
    (BasicProperties::kind, BasicProperties::with_type),
    (BasicProperties::app_id, BasicProperties::with_app_id),
    (BasicProperties::cluster_id, BasicProperties::with_cluster_id),
];

/// Returns the properties of a copy that waits for that attempt; `cause` is the `error.type` of the one before, `way` the exchange and the
/// routing key of the message where it does not come back by them.
///
/// All properties and all headers keep their value and type. Left out are the expiration, which would end the wait, the user, which is a
/// foreign one, and what the server writes. The headers of the copy's own are replaced, so that they do not grow from attempt to attempt.
pub(crate) fn to_copy(
    arrived: &BasicProperties,
    way: Option<(&str, &str)>,
    attempt: u32,
    cause: Option<&str>,
) -> BasicProperties {
    let own = [RETRY_ATTEMPT, RETRY_ERROR, RETRY_EXCHANGE, RETRY_KEY];
    let mut headers = FieldTable::default();
    for (name, value) in arrived.headers().iter().flatten() {
        if is_passed_on(name.as_str()) && !own.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let mut put = |name: &str, text: &str| {
        if let Ok(name) = ShortString::try_new(name) {
            headers.insert(name, AMQPValue::LongString(text.into()));
        }
    };
    put(RETRY_ATTEMPT, &attempt.to_string());
    if let Some(cause) = cause {
        put(RETRY_ERROR, cause);
    }
    if let Some((exchange, key)) = way {
        put(RETRY_EXCHANGE, exchange);
        put(RETRY_KEY, key);
    }
    copied(arrived, &KEPT).with_headers(headers).with_delivery_mode(PERSISTENT)
}

/// What a copy says that has come back from a delay queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Returned<'a> {
    /// Which attempt it is.
    pub(crate) attempt: u32,
    /// The `error.type` of the one before.
    pub(crate) cause: Option<&'a str>,
    /// The exchange and the routing key of the message, where they are not those of the copy.
    pub(crate) way: Option<(&'a str, &'a str)>,
}

impl<'a> Returned<'a> {
    /// Reads it; `None` where the message has not just waited in a delay queue of the queue. The headers alone do not count: they stay on a
    /// message that was given up, and somebody may send it to the queue again, or write them.
    pub(crate) fn read(properties: &'a BasicProperties, queue: &str) -> Option<Self> {
        let table = properties.headers().as_ref()?;
        if !table.contains_key(RETRY_ATTEMPT) || !death::has_waited(table, queue) {
            return None;
        }
        let text = |name| HeaderExtractor::new(table).find(name);
        let attempt = text(RETRY_ATTEMPT).and_then(|attempt| attempt.parse().ok()).unwrap_or(2).max(2);
        // An exchange without a name is the default one, and its header then has no text.
        let way = text(RETRY_KEY).map(|key| (text(RETRY_EXCHANGE).unwrap_or_default(), key));
        let fanout = || text(RETRY_EXCHANGE).map(|exchange| (exchange, ""));
        Some(Self { attempt, cause: text(RETRY_ERROR), way: way.or_else(fanout) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_properties, each_type, table, text, with_headers};

    const WAY: Option<(&str, &str)> = Some(("shop", "placed.eu"));

    /// What the server makes of a copy that has waited.
    fn waited(copy: &BasicProperties) -> BasicProperties {
        let mut headers = copy.headers().clone().unwrap_or_default();
        headers.insert("x-last-death-queue".into(), text("orders.retry.30s"));
        copy.clone().with_headers(headers)
    }

    #[test]
    fn a_copy_keeps_everything_and_its_headers_do_not_grow() {
        let kept = || {
            BasicProperties::default()
                .with_priority(5)
                .with_timestamp(u64::MAX)
                .with_content_type("application/json".into())
                .with_content_encoding("gzip".into())
                .with_correlation_id("c1".into())
                .with_reply_to("answers".into())
                .with_message_id("m1".into())
                .with_type("order.placed".into())
                .with_app_id("shop".into())
        };
        let own = [
            ("retry-attempt", text("2")),
            ("retry-error", text("timeout")),
            ("retry-exchange", text("shop")),
            ("retry-routing-key", text("placed.eu")),
        ];
        let headers = table(&[each_type(), own.to_vec()].concat());
        let arrived =
            kept().with_headers(table(&each_type())).with_expiration("60000".into()).with_user_id("guest".into());
        let first = to_copy(&arrived, WAY, 2, Some("timeout"));
        assert_eq!(first, kept().with_headers(headers.clone()).with_delivery_mode(2));

        let second = to_copy(&waited(&first), WAY, 3, None);
        let mut expected = headers;
        expected.insert("retry-attempt".into(), text("3"));
        let expected = expected.into_iter().filter(|(name, _)| name.as_str() != "retry-error");
        let second: Vec<_> =
            second.headers().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
        assert_eq!(second, expected.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>());
    }

    #[test]
    fn a_copy_that_has_waited_says_what_it_is() {
        let read = |properties: &BasicProperties| {
            let returned = Returned::read(properties, "orders")?;
            let owned = |text: &str| text.to_owned();
            Some((
                returned.attempt,
                returned.cause.map(owned),
                returned.way.map(|(exchange, key)| (owned(exchange), owned(key))),
            ))
        };
        let copy = to_copy(&BasicProperties::default(), WAY, 4, Some("timeout"));
        let way = Some(("shop".to_owned(), "placed.eu".to_owned()));
        assert_eq!(read(&waited(&copy)), Some((4, Some("timeout".to_owned()), way)));
        let fanout = to_copy(&BasicProperties::default(), Some(("logs", "")), 2, None);
        assert_eq!(read(&waited(&fanout)), Some((2, None, Some(("logs".to_owned(), String::new())))));
        let plain = to_copy(&BasicProperties::default(), None, 2, None);
        assert_eq!(plain.headers(), &Some(table(&[("retry-attempt", text("2"))])));
        assert_eq!(read(&waited(&plain)), Some((2, None, None)));
        assert_eq!(read(&copy), None, "a stranger can write the headers, too");
    }

    #[test]
    fn a_word_that_is_no_number_counts_as_the_second_attempt() {
        for odd in ["0", "1", "-1", "soon", "4294967296", ""] {
            let properties = waited(&with_headers(&[("retry-attempt", text(odd))]));
            assert_eq!(Returned::read(&properties, "orders").map(|returned| returned.attempt), Some(2), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn whatever_arrived_can_be_copied(properties in any_properties(), attempt: u32) {
            let copy = to_copy(&properties, WAY, attempt, Some("timeout"));
            let _ = Returned::read(&waited(&copy), "orders");
        }
    }
}

use std::borrow::Cow;

use throughline_core::broker::Wildcards;
use throughline_core::message::{Operations, System};

/// `messaging.system`.
// ATTR-S-02.
pub(crate) const SYSTEM: &str = "rabbitmq";

// ATTR-R-05.
pub(crate) const ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";

// ATTR-R-06.
pub(crate) const DELIVERY_TAG: &str = "messaging.rabbitmq.message.delivery_tag";

/// The signs of binding keys.
pub(crate) const WILDCARDS: Wildcards = Wildcards::new('.', "*", "#").rest_may_be_empty();

// SPAN-08.
const OPERATIONS: Operations = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("reject");

/// What telemetry calls the default exchange without a key.
// ATTR-R-01.
pub(crate) const NOWHERE: &str = "amq.default";

/// How the names of queues begin that the server has chosen.
const GENERATED: &str = "amq.gen-";

/// How the addresses of direct replies begin.
pub(crate) const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Describes a connection.
pub(crate) fn system(server: Option<(&str, u16)>, client_id: Option<&str>) -> System {
    System::new(SYSTEM, OPERATIONS).with_connection(server, client_id)
}

/// Returns the name of what a message is published to.
// ATTR-R-01.
pub(crate) fn target_name<'a>(exchange: &'a str, key: &'a str) -> Cow<'a, str> {
    match (exchange, key) {
        ("", "") => NOWHERE.into(),
        ("", one) | (one, "") => one.into(),
        (exchange, key) => format!("{exchange}:{key}").into(),
    }
}

/// Returns the name of what a message came from; with a binding's key in place of the message's it is the template.
// ATTR-R-02, ATTR-R-10.
pub(crate) fn source_name<'a>(exchange: &'a str, key: &'a str, queue: &'a str) -> Cow<'a, str> {
    let queue = if queue == key { "" } else { queue };
    match (exchange, key, queue) {
        ("", "", one) | ("", one, "") | (one, "", "") => one.into(),
        (one, other, "") | (one, "", other) | ("", one, other) => format!("{one}:{other}").into(),
        (exchange, key, queue) => format!("{exchange}:{key}:{queue}").into(),
    }
}

/// Tells whether a queue has a name that nobody chose, or is the address of a direct reply.
// ATTR-R-08.
pub(crate) fn is_anonymous(queue: &str) -> bool {
    queue.is_empty() || queue.starts_with(GENERATED) || queue.starts_with(DIRECT_REPLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_exchange_and_key() {
        let names = [("", "orders"), ("direct_logs", "warning"), ("logs", ""), ("", "")];
        let names = names.map(|(exchange, key)| target_name(exchange, key).into_owned());
        assert_eq!(names, ["orders", "direct_logs:warning", "logs", "amq.default"], "ATTR-R-01, ATTR-R-03");
    }

    #[test]
    fn a_source_is_exchange_key_and_queue() {
        let names = [
            ("direct_logs", "warning", "my_queue"),
            ("", "orders", "orders"),
            ("logs", "", "q"),
            ("ex", "q", "q"),
            ("", "", "q"),
            ("", "k", "q"),
            ("ev", "eu.*", ""),
        ];
        let names = names.map(|(exchange, key, queue)| source_name(exchange, key, queue).into_owned());
        let expected = ["direct_logs:warning:my_queue", "orders", "logs:q", "ex:q", "q", "k:q", "ev:eu.*"];
        assert_eq!(names, expected, "ATTR-R-02, ATTR-R-03");
    }

    #[test]
    fn a_generated_name_and_a_reply_address_are_anonymous() {
        assert!(
            is_anonymous("amq.gen-x") && is_anonymous("amq.rabbitmq.reply-to.g2dk") && is_anonymous(""),
            "ATTR-R-08"
        );
        assert!(!is_anonymous("orders"), "ATTR-R-08");
    }
}

//! Which names the protocol and the brokers take. A wrong one is refused here: on the way it would be cut off, or be waited for.

use throughline_core::broker::BrokerError;

use crate::subscription::Topic;

/// The longest name of a topic, and the longest id of a static member.
const LONGEST: usize = 249;

/// The longest text of the protocol: its length has 15 bits.
const LONGEST_TEXT: usize = 32_767;

/// Tells what the brokers take as the name of a topic. A wrong one would be a topic that is long waited for.
pub(crate) fn is_topic(name: &str) -> bool {
    let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || matches!(sign, b'.' | b'_' | b'-');
    // Without an early end, so that the compiler can look at many bytes at once.
    let all = |name: &str| name.bytes().fold(true, |all, sign| all & is_sign(sign));
    (1..=LONGEST).contains(&name.len()) && all(name) && name != "." && name != ".."
}

/// Refuses a subscription with a name that the brokers do not take.
pub(crate) fn check(topic: &Topic) -> Result<(), BrokerError> {
    if let Some(group) = &topic.group {
        check_text("the group", group)?;
    }
    if let Some(id) = &topic.exactly_once {
        check_text("the transactional id", id)?;
    }
    if let Some(id) = &topic.static_member
        && !is_topic(id)
    {
        return Err(refused("the id of the static member", id, "it has the form of a topic's name"));
    }
    if topic.is_pattern {
        let names = topic.names.iter();
        return names.into_iter().try_for_each(|expression| check_text("the expression for topics", expression));
    }
    let all = topic.all_names()?;
    match all.iter().find(|name| !is_topic(name)) {
        Some(name) if topic.is_retry_topic(name) => {
            let advice = "the name of a retry topic is made of those of the topic and the group: shorten them, and use in both what a topic may have";
            Err(refused("the retry topic", name, advice))
        }
        Some(name) => Err(refused("the topic", name, "")),
        None => Ok(()),
    }
}

/// Refuses a text that the protocol cannot carry, or that says nothing.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), BrokerError> {
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() > LONGEST_TEXT {
        "it is longer than 32,767 bytes"
    } else if text.contains('\0') {
        "it has a zero byte"
    } else {
        return Ok(());
    };
    Err(BrokerError::configuration(format!("{what} is no name for Kafka: {why}")))
}

fn refused(what: &str, name: &str, advice: &str) -> BrokerError {
    // It may be long.
    let shown: String = name.chars().take(LONGEST + 1).collect();
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    BrokerError::configuration(format!(
        "{what} `{}` has no name that Kafka takes: use 1 to 249 ASCII letters, digits, `.`, `_` and `-`, and not `.` or `..`{advice}",
        shown.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throughline_core::broker::BrokerErrorKind;

    use super::*;

    #[test]
    fn a_topic_has_a_name_the_brokers_take() {
        let longest = "a".repeat(LONGEST);
        for name in ["orders", "orders.placed_2-x", "...", "A", longest.as_str()] {
            assert!(is_topic(name), "{name}");
        }
        let too_long = "a".repeat(LONGEST + 1);
        for name in ["", ".", "..", "a b", "größe", "a\0", "a/b", too_long.as_str()] {
            assert!(!is_topic(name), "{name:?}");
        }
    }

    #[test]
    fn a_subscription_with_a_name_that_is_none_is_refused() {
        let (long, text) = ("a".repeat(LONGEST + 1), "g".repeat(LONGEST_TEXT + 1));
        let orders = || Topic::new("orders");
        let retried = |group: &str| orders().group(group).retry_topics([Duration::from_secs(1)]);
        for (topic, named) in [
            (Topic::new(""), "topic"),
            (Topic::new("a b"), "`a b`"),
            (Topic::new(long.as_str()), "249"),
            (orders().and("a\0b"), "topic"),
            (orders().group(""), "group"),
            (orders().group(text.as_str()), "group"),
            (orders().group("a\0"), "group"),
            (orders().group("g").static_member("a b"), "static member"),
            (orders().group("g").exactly_once(text.as_str()), "transactional id"),
            (Topic::pattern("^a\0"), "expression"),
            (retried("two words"), "retry topic"),
            (retried(long.as_str()), "retry topic"),
        ] {
            let error = check(&topic).unwrap_err();
            assert_eq!(error.kind(), BrokerErrorKind::Configuration);
            assert!(error.to_string().contains(named), "{error}");
        }
        for topic in [orders().group("two words"), orders(), Topic::pattern("^a b.*"), retried("g")] {
            assert!(check(&topic).is_ok(), "{topic:?}");
        }
    }
}

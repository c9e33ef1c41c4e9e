//! Which names the protocol and the brokers take. A wrong one is refused here: on the way it would be cut off, or be waited for.

use throughline_core::BrokerError;

/// The longest name of a topic, and the longest id of a static member.
pub(crate) const LONGEST: usize = 249;

/// The longest text of the protocol: its length has 15 bits.
pub(crate) const LONGEST_TEXT: usize = 32_767;

/// Tells what the brokers take as the name of a topic. A wrong one would be a topic that is long waited for.
pub(crate) fn is_topic(name: &str) -> bool {
    let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || matches!(sign, b'.' | b'_' | b'-');
    // Without an early end, so that the compiler can look at many bytes at once.
    let all = |name: &str| name.bytes().fold(true, |all, sign| all & is_sign(sign));
    (1..=LONGEST).contains(&name.len()) && all(name) && name != "." && name != ".."
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

pub(crate) fn refused(what: &str, name: &str, advice: &str) -> BrokerError {
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
}

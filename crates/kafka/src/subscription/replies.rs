use std::fmt;
use std::sync::Arc;

use throughline_core::Destination;
use tracing::warn;

use crate::destination::Purpose;
use crate::names::is_topic;
use crate::outage::Repeats;

/// The topics to which a message may ask for its answer.
#[derive(Default)]
pub(crate) struct ReplyTopics {
    patterns: Vec<Arc<str>>,
    refused: Repeats<()>,
}

impl ReplyTopics {
    pub(super) fn new<T: Into<Arc<str>>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self { patterns: topics.into_iter().map(Into::into).collect(), refused: Repeats::default() }
    }

    /// Returns the destination that a message from a topic asks for, where that is allowed.
    pub(crate) fn destination(&self, asked: &str, topic: &str) -> Option<Destination> {
        if is_topic(asked) && self.patterns.iter().any(|pattern| matches(pattern, asked)) {
            let purpose = Purpose { is_asked: true, ..Purpose::default() };
            return Some(Destination::new(asked.to_owned()).with_native(purpose));
        }
        if let Some(left_out) = self.refused.admit(()) {
            warn!(
                destination = topic,
                left_out,
                "a message asks for an answer to a topic that is not allowed, and gets none there: see `Topic::reply_topics`"
            );
        }
        None
    }
}

impl fmt::Debug for ReplyTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyTopics").field(&self.patterns).finish()
    }
}

/// Tells whether a name is one of a pattern's, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // Each part as early as it can be leaves most for those behind it.
    let after = |rest: &'_ str, part: &str| rest.find(part).map(|found| found + part.len());
    let mut start = 0;
    for part in parts {
        match rest.get(start..).and_then(|rest| after(rest, part)) {
            Some(length) => start += length,
            None => return false,
        }
    }
    rest.get(start..).is_some_and(|rest| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::super::Topic;
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("replies", "replies", true),
            ("replies", "replies.a", false),
            ("replies", "my.replies", false),
            ("replies.*", "replies.a", true),
            ("replies.*", "replies.", true),
            ("replies.*", "replies", false),
            ("*.replies", "a.b.replies", true),
            ("a.*.c.*.e", "a.b.c.d.e", true),
            ("a.*.c.*.e", "a.c.e", false),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
            ("*", "anything", true),
            ("", "anything", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_answer_goes_nowhere_unless_that_is_allowed() {
        let asked = |topic: Topic, name| topic.replies.destination(name, "prices").map(|to| to.name().to_owned());
        assert_eq!(asked(Topic::new("prices"), "secret-topic"), None);
        let some = || Topic::new("prices").reply_topics(["replies.*"]);
        assert_eq!(asked(some(), "secret-topic"), None);
        assert_eq!(asked(some(), "replies.1"), Some("replies.1".to_owned()));
        assert_eq!(asked(some(), "replies.a b"), None, "no name of a topic");
    }
}

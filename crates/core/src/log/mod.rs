//! What the log says about the messages of a subscription: with which fields, how often, and how much of an error.

mod limit;
mod text;

use std::borrow::Cow;
use std::sync::Arc;

use tracing::Level;

use self::limit::LogLimit;
use self::text::ErrorText;
use crate::broker::Subscription;
use crate::message::Failure;

/// The longest text of an error in a line, in characters: it may be a stranger's doing.
const MOST_TEXT: usize = 1024;

/// The log of one subscription.
#[derive(Debug)]
pub(crate) struct SubscriptionLog {
    group: Option<Arc<str>>,
    delivery_limit: Option<u32>,
    /// Whether the texts of the user's errors may stand in it.
    has_error_texts: bool,
    limit: Arc<LogLimit>,
}

impl SubscriptionLog {
    pub(crate) fn new(subscription: &Subscription, has_error_texts: bool) -> Self {
        let group = subscription.group().or(subscription.name()).map(Arc::from);
        let limit = Arc::new(LogLimit::new(subscription.destination(), group.clone()));
        Self { group, delivery_limit: subscription.delivery_limit(), has_error_texts, limit }
    }

    /// What the subscription receives, as it was written.
    pub(crate) fn destination(&self) -> &str {
        self.limit.destination()
    }

    /// The group, the queue group or the durable name of the subscription.
    pub(crate) fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// How often the broker delivers a message at most, where it has a limit.
    pub(crate) const fn delivery_limit(&self) -> Option<u32> {
        self.delivery_limit
    }

    /// Tells whether a line may be written. Those of its kind that were left out are counted in a later line.
    pub(crate) fn admits(&self, level: Level, text: Cow<'static, str>) -> bool {
        self.limit.admits(level, text)
    }

    /// Says how many lines were left out and not counted in a line yet.
    pub(crate) fn flush(&self) {
        self.limit.flush();
    }

    /// The text of a failure with its causes, as far as the log may have it: never what is in a body that could not be decoded.
    pub(crate) fn error_text(&self, failure: &Failure) -> Option<String> {
        let is_own = failure.is_framework() && failure.error_type() != "decode_error";
        self.shortened(ErrorText { error: failure.error(), is_shown: is_own || self.has_error_texts }.to_string())
    }

    /// A text that the user's code gave, where the log may have it.
    pub(crate) fn reason(&self, reason: &str) -> Option<String> {
        self.has_error_texts.then(|| self.shortened(reason.to_owned())).flatten()
    }

    fn shortened(&self, mut text: String) -> Option<String> {
        if let Some((end, _)) = text.char_indices().nth(MOST_TEXT) {
            text.truncate(end);
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Writes a line about a message, unless too many of its kind were written for its subscription: `log_line!(log, WARN, "text", fields..)`.
///
/// Only for warnings and errors. It is a macro since the fields of a line are.
macro_rules! log_line {
    ($log:expr, $level:ident, $text:literal $(, $($fields:tt)+)?) => {{
        let text = format!($text);
        if $log.admits(tracing::Level::$level, text.clone().into()) {
            tracing::event!(tracing::Level::$level, $($($fields)+,)? "{text}");
        }
    }};
}

pub(crate) use log_line;

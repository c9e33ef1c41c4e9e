use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::types::AMQPValue;

use super::arguments::whole;

/// What a full queue does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Overflow {
    /// It drops its oldest messages, or dead-letters them. The server's default.
    DropHead,
    /// It refuses what is published, which is an error for the publisher.
    RejectPublish,
    /// It refuses what is published, and dead-letters it (classic queues).
    RejectPublishDeadLetter,
}

/// Where reading a stream begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamOffset {
    /// At the first message there is.
    First,
    /// At the last part that was written.
    Last,
    /// With what is published from now on.
    Next,
    /// At the message with that number.
    At(u64),
    /// At the first message of that time or later, to the second.
    Since(SystemTime),
    /// At the first message that is at most so old when the reading begins, to the second.
    Ago(Duration),
}

impl Overflow {
    /// Returns the name that the server has for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDeadLetter => "reject-publish-dlx",
        }
    }
}

/// How much the clocks of the service and of the server may differ.
const CLOCKS: Duration = Duration::from_secs(5);

impl StreamOffset {
    /// Returns where reading goes on that has begun here at that time, and has read nothing yet.
    pub(crate) fn since(self, began: SystemTime) -> Self {
        let before = |time| Self::Since(began.checked_sub(time).unwrap_or(UNIX_EPOCH));
        match self {
            Self::Next | Self::Last => before(CLOCKS),
            Self::Ago(time) => before(time.saturating_add(CLOCKS)),
            Self::First | Self::At(_) | Self::Since(_) => self,
        }
    }

    pub(super) fn to_value(self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Next => AMQPValue::LongString("next".into()),
            Self::At(offset) => whole(offset),
            Self::Ago(time) => AMQPValue::LongString(format!("{}s", time.as_secs()).into()),
            Self::Since(time) => {
                AMQPValue::Timestamp(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
            }
        }
    }
}

use std::time::SystemTime;

use async_nats::datetime;
use async_nats::jetstream::consumer::DeliverPolicy;
use throughline_core::BrokerError;

/// What says with which message of its stream a new consumer starts. One that exists goes on where it was.
///
/// # Examples
///
/// ```
/// use throughline_nats::{StartPosition, Stream};
/// let latest = Stream::new("PRICES").durable("board").start(StartPosition::LastPerSubject);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum StartPosition {
    /// The first message that is stored. The default: nothing is left out.
    #[default]
    Earliest,
    /// What is stored after the consumer is there.
    Latest,
    /// The last message that is stored.
    Last,
    /// The last message of each subject.
    LastPerSubject,
    /// The message with that sequence.
    Sequence(u64),
    /// The first message stored at that time or later.
    Time(SystemTime),
}

impl StartPosition {
    pub(crate) fn to_policy(self) -> Result<DeliverPolicy, BrokerError> {
        Ok(match self {
            Self::Earliest => DeliverPolicy::All,
            Self::Last => DeliverPolicy::Last,
            Self::LastPerSubject => DeliverPolicy::LastPerSubject,
            Self::Latest => DeliverPolicy::New,
            Self::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
            Self::Time(time) => {
                let nanos = time
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX));
                let start_time = datetime::from_nanos(nanos).map_err(|error| {
                    BrokerError::configuration(
                        "the start position is a time too far away: give one within the calendar",
                    )
                    .with_source(error)
                })?;
                DeliverPolicy::ByStartTime { start_time }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_before_the_epoch_is_the_epoch() {
        let before = StartPosition::Time(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).to_policy().unwrap();
        assert_eq!(before, StartPosition::Time(SystemTime::UNIX_EPOCH).to_policy().unwrap());
    }
}

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use throughline_core::message::Destination;

/// Is a topic to publish to, with what a plain name leaves to the client: the partition and the timestamp.
///
/// # Examples
///
/// ```
/// use throughline_core::Destination;
/// use throughline_kafka::TopicDestination;
/// let destination = Destination::from(TopicDestination::new("orders").partition(3));
/// assert_eq!(destination.name(), "orders");
/// ```
#[derive(Clone, Debug)]
pub struct TopicDestination {
    name: Arc<str>,
    route: Route,
}

impl TopicDestination {
    /// Creates a destination from the name of its topic.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::TopicDestination;
    /// let destination = TopicDestination::new("orders");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), route: Route::default() }
    }

    /// Sets the partition, counted from 0. The default is the one the client computes from the key (property
    /// `partitioner`), or any where there is no key.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::TopicDestination;
    /// let destination = TopicDestination::new("orders").partition(3);
    /// ```
    #[must_use]
    pub const fn partition(mut self, partition: i32) -> Self {
        self.route.partition = Some(partition);
        self
    }

    /// Sets when the message was made, to the millisecond. The default is now. A topic whose
    /// `message.timestamp.type` is `LogAppendTime` replaces it. One up to 1970 counts as now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use throughline_kafka::TopicDestination;
    /// let destination = TopicDestination::new("orders").timestamp(SystemTime::now());
    /// ```
    #[must_use]
    pub fn timestamp(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.route.timestamp = Some(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        self
    }
}

impl From<TopicDestination> for Destination {
    fn from(topic: TopicDestination) -> Self {
        Self::new(topic.name).with_native(topic.route)
    }
}

/// Is what a typed destination says beyond its topic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Route {
    pub(crate) partition: Option<i32>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
    /// Of a retry topic: how long the message waits there; zero where that is the topic's own delay.
    pub(crate) retry: Option<Duration>,
    /// Whether the name came with a message, so that nobody here knows of it.
    pub(crate) is_asked: bool,
}

impl Route {
    pub(crate) fn of(destination: &Destination) -> Self {
        destination.native::<Self>().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_destination_says_partition_and_time() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let destination = Destination::from(TopicDestination::new("orders").partition(3).timestamp(time));
        assert_eq!(
            Route::of(&destination),
            Route { partition: Some(3), timestamp: Some(1_700_000_000_123), ..Route::default() }
        );
        assert_eq!(Route::of(&Destination::new("orders")), Route::default());
    }
}

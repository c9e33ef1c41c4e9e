use rdkafka::admin::{NewTopic as NativeTopic, TopicReplication};

/// What stands for the brokers' own setting.
const DEFAULT_OF_BROKERS: i32 = -1;

/// How a topic is created that is missing, for [`Topic::declare`](crate::Topic::declare).
///
/// # Examples
///
/// ```
/// use throughline_kafka::{NewTopic, Topic};
///
/// let new = NewTopic::partitions(3).replication(1).property("retention.ms", "86400000");
/// let orders = Topic::new("orders.placed").group("stock").declare(new);
/// # let _ = orders;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewTopic {
    partitions: i32,
    replication: i32,
    properties: Vec<(String, String)>,
}

impl NewTopic {
    /// Creates it from the number of partitions; zero counts as one. So many members of a group share the topic at most.
    ///
    /// # Examples
    ///
    /// ```
    /// let new = throughline_kafka::NewTopic::partitions(3);
    /// # let _ = new;
    /// ```
    #[must_use]
    pub fn partitions(partitions: u32) -> Self {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX).max(1);
        Self { partitions, replication: DEFAULT_OF_BROKERS, properties: Vec::new() }
    }

    /// Sets how many brokers keep each message; zero counts as one. The default is the brokers' own (`default.replication.factor`).
    #[must_use]
    pub fn replication(mut self, copies: u16) -> Self {
        self.replication = i32::from(copies).max(1);
        self
    }

    /// Sets a property of the topic by its name. The brokers refuse one that they do not know.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    pub(crate) fn partition_count(&self) -> usize {
        usize::try_from(self.partitions).unwrap_or(usize::MAX)
    }

    /// Returns it as the client takes it, for a topic of that name.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> NativeTopic<'a> {
        let new = NativeTopic::new(name, self.partitions, TopicReplication::Fixed(self.replication));
        self.properties.iter().fold(new, |new, (name, value)| new.set(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_left_to_the_brokers() {
        let new = NewTopic::partitions(3);
        let native = new.of("orders");
        assert_eq!((native.name, native.num_partitions), ("orders", 3));
        assert!(matches!(native.replication, TopicReplication::Fixed(-1)));
        let new = NewTopic::partitions(0).replication(0).property("cleanup.policy", "compact");
        let native = new.of("orders");
        assert_eq!((native.num_partitions, new.partition_count()), (1, 1));
        assert!(matches!(native.replication, TopicReplication::Fixed(1)));
        assert_eq!(native.config, [("cleanup.policy", "compact")]);
    }
}

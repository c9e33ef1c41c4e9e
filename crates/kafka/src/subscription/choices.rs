use std::time::SystemTime;

/// Where a group begins that is new to a topic, or a subscription without a group.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use throughline_kafka::{StartPosition, Topic};
///
/// let yesterday = SystemTime::now() - Duration::from_secs(86_400);
/// let topic = Topic::new("orders").group("report").start(StartPosition::Time(yesterday));
/// # let _ = topic;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StartPosition {
    /// The oldest message that is kept.
    Earliest,
    /// What is published from the start of the subscription on.
    Latest,
    /// The first message that is not older than this; the end where there is none.
    Time(SystemTime),
}

/// How a group divides its partitions among its members (`partition.assignment.strategy`).
///
/// # Examples
///
/// ```
/// use throughline_kafka::Assignment;
/// assert_eq!(Assignment::CooperativeSticky.as_str(), "cooperative-sticky");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Assignment {
    /// Keeps as much as can be where it is, and stops only the partitions that move.
    CooperativeSticky,
    /// Gives each member a range of each topic: partitions of the same number of several topics come together. Stops all partitions
    /// at each rebalance.
    Range,
    /// Deals the partitions out one by one. Stops all partitions at each rebalance.
    RoundRobin,
}

impl Assignment {
    /// Returns the client's name of the strategy.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_kafka::Assignment::Range.as_str(), "range");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
        }
    }
}

/// Which messages of transactions are read (`isolation.level`).
///
/// # Examples
///
/// ```
/// use throughline_kafka::Isolation;
/// assert_eq!(Isolation::ReadCommitted.as_str(), "read_committed");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Isolation {
    /// Only those of transactions that were committed; reading waits at an open one.
    ReadCommitted,
    /// All.
    ReadUncommitted,
}

impl Isolation {
    /// Returns the client's name of the level.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_kafka::Isolation::ReadUncommitted.as_str(), "read_uncommitted");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

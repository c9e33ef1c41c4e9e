use crate::message::OperationType;

/// What the parent of a single message's process span is. The link to the producer is there in every mode.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ParentMode {
    /// The span that is current where the message is handled, else the message's own context.
    #[default]
    Auto,
    /// The span that is current, else none: only the link leads to the producer.
    ///
    /// With ratio sampling, producer and consumer are then sampled independently, since samplers ignore links.
    LinkOnly,
    /// The message's own context always; a current span is linked.
    Parent,
}

/// How far the propagation headers of incoming messages are trusted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Trust {
    /// The trace and the baggage go on.
    #[default]
    Continue,
    /// The headers are not read.
    Ignore,
    /// The producer is linked, never the parent; its baggage is dropped.
    Link,
}

/// Which settlements get a span of their own. Every settlement is in the metrics in each mode.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum SettleSpans {
    /// Every settlement.
    Always,
    /// Retries, rejections and failed settlements. A plain successful ack adds half again to the span volume and says nothing.
    #[default]
    Exceptional,
    /// None.
    Never,
}

/// How the baggage of a batch's messages becomes that of its handler.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum BatchBaggage {
    /// Only entries on which no two messages disagree.
    Agreeing,
    /// All entries, in message order with the last value winning.
    #[default]
    Merged,
    /// No entry.
    None,
}

/// Which baggage entries pass.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum BaggagePolicy {
    /// Every entry.
    #[default]
    All,
    /// No entry.
    Off,
    /// Entries with these keys.
    Only(Vec<String>),
}

impl BaggagePolicy {
    /// Lets only the listed keys pass.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::BaggagePolicy;
    /// assert_eq!(BaggagePolicy::only(["tenant"]), BaggagePolicy::Only(vec!["tenant".to_owned()]));
    /// ```
    #[must_use]
    pub fn only<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self::Only(keys.into_iter().map(Into::into).collect())
    }

    pub(crate) fn admits(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Off => false,
            Self::Only(keys) => keys.iter().any(|allowed| allowed == key),
        }
    }
}

/// The operation a span is about to stand for, as hooks and filters see it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OperationInfo<'a> {
    /// `messaging.operation.type`.
    pub operation_type: OperationType,
    /// `messaging.operation.name`.
    pub operation_name: &'static str,
    /// `messaging.system`.
    pub system: &'a str,
    /// `messaging.destination.name`, empty when there is none.
    pub destination: &'a str,
    /// `messaging.destination.template`.
    pub template: Option<&'a str>,
}

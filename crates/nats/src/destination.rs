use std::sync::Arc;

use throughline_core::Destination;

/// A subject of core NATS to publish to, also through a [`Nats`](crate::Nats) whose plain destinations are streams: at most once, and
/// confirmed by nobody.
///
/// # Examples
///
/// ```
/// use throughline_core::Destination;
/// use throughline_nats::CoreSubject;
/// let destination = Destination::from(CoreSubject::new("prices.changed"));
/// assert_eq!(destination.name(), "prices.changed");
/// ```
#[derive(Clone, Debug)]
pub struct CoreSubject {
    name: Arc<str>,
}

impl CoreSubject {
    /// Creates a destination from its subject.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::CoreSubject;
    /// let destination = CoreSubject::new("prices.changed");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into() }
    }
}

impl From<CoreSubject> for Destination {
    fn from(subject: CoreSubject) -> Self {
        Self::new(subject.name).with_native(Through::Core)
    }
}

/// A subject of a stream to publish to; a publish returns when the server has stored the message.
///
/// # Examples
///
/// ```
/// use throughline_core::Destination;
/// use throughline_nats::StreamSubject;
/// let destination = Destination::from(StreamSubject::new("orders.placed").expected_stream("ORDERS"));
/// assert_eq!(destination.name(), "orders.placed");
/// ```
#[derive(Clone, Debug)]
pub struct StreamSubject {
    name: Arc<str>,
    expected: Expected,
}

impl StreamSubject {
    /// Creates a destination from its subject.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::StreamSubject;
    /// let destination = StreamSubject::new("orders.placed");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), expected: Expected::default() }
    }

    /// Lets the server refuse the message when another stream takes the subject.
    #[must_use]
    pub fn expected_stream(mut self, stream: impl Into<Arc<str>>) -> Self {
        self.expected.stream = Some(stream.into());
        self
    }

    /// Lets the server refuse the message when the last one of the stream has another sequence.
    #[must_use]
    pub const fn expected_last_sequence(mut self, sequence: u64) -> Self {
        self.expected.last_sequence = Some(sequence);
        self
    }

    /// Lets the server refuse the message when the last one of its subject has another sequence; 0 says that there is
    /// none.
    #[must_use]
    pub const fn expected_last_subject_sequence(mut self, sequence: u64) -> Self {
        self.expected.last_subject_sequence = Some(sequence);
        self
    }

    /// Lets the server refuse the message when the last one of the stream has another id.
    #[must_use]
    pub fn expected_last_message_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.expected.last_message_id = Some(id.into());
        self
    }
}

impl From<StreamSubject> for Destination {
    fn from(subject: StreamSubject) -> Self {
        Self::new(subject.name).with_native(Through::Stream(subject.expected))
    }
}

/// What a typed destination says beyond its subject.
#[derive(Clone, Debug)]
pub(crate) enum Through {
    Core,
    Stream(Expected),
}

/// What the server is to check before it stores a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    stream: Option<Arc<str>>,
    last_sequence: Option<u64>,
    last_subject_sequence: Option<u64>,
    last_message_id: Option<Arc<str>>,
}

impl Expected {
    /// Returns the server headers that say so.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let text = |value: &Option<Arc<str>>| value.as_deref().map(str::to_owned);
        [
            ("Nats-Expected-Stream", text(&self.stream)),
            ("Nats-Expected-Last-Sequence", number(self.last_sequence)),
            ("Nats-Expected-Last-Subject-Sequence", number(self.last_subject_sequence)),
            ("Nats-Expected-Last-Msg-Id", text(&self.last_message_id)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_told_by_server_headers() {
        let subject = StreamSubject::new("s")
            .expected_stream("ORDERS")
            .expected_last_sequence(41)
            .expected_last_subject_sequence(0)
            .expected_last_message_id("m41");
        let headers: Vec<_> = subject.expected.headers().collect();
        assert_eq!(headers.len(), 4);
        assert!(headers.contains(&("Nats-Expected-Last-Subject-Sequence", "0".to_owned())));
        assert_eq!(StreamSubject::new("s").expected.headers().count(), 0);
    }
}

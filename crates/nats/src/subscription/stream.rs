use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use throughline_core::broker::{BatchPolicy, Pattern, Subscription};

use super::StartPosition;
use crate::acks::within_reach;
use crate::semconv::{SYSTEM, WILDCARDS};

/// How many messages a pull consumer holds ready unless told otherwise, at least and at most.
const PREFETCH: RangeInclusive<usize> = 64..=512;

/// The most of them, whatever is asked for: as many as the client holds for one subscription.
const LARGEST_PREFETCH: usize = 65_536;

/// What the server calls no limit.
const UNLIMITED: i64 = -1;

/// What to consume from a stream of JetStream: through a durable consumer, at least once.
///
/// The consumer is created when it is missing and reused when it is there; a reused one that contradicts what is asked
/// for here is an error that names the field. The stream must exist unless [`subjects`](Self::subjects) or
/// [`declare`](Self::declare) says how to create it.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::Subscription;
/// use throughline_nats::Stream;
///
/// let stream = Stream::new("ORDERS").durable("stock").filter("orders.{id}.placed");
/// let subscription = Subscription::from(stream);
/// assert_eq!(subscription.name(), Some("stock"));
/// assert!(subscription.patterns()[0].matches("orders.42.placed"));
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    pub(crate) name: Arc<str>,
    pub(crate) durable: Option<Arc<str>>,
    pub(crate) filters: Vec<Arc<str>>,
    pub(crate) declared: Option<Config>,
    pub(crate) start: Option<StartPosition>,
    pub(crate) ack_wait: Option<Duration>,
    pub(crate) max_ack_pending: Option<i64>,
    pub(crate) max_deliver: Option<i64>,
    pub(crate) confirmed: bool,
    pub(crate) headers_only: bool,
    pub(crate) push: bool,
    pub(crate) deliver_group: Option<Arc<str>>,
    prefetch: Option<usize>,
    batch: Option<BatchPolicy>,
}

impl Stream {
    /// Creates a subscription to a stream by its name. A durable name is needed too.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let stream = Stream::new("ORDERS").durable("stock");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            durable: None,
            filters: Vec::new(),
            declared: None,
            start: None,
            ack_wait: None,
            max_ack_pending: None,
            max_deliver: None,
            confirmed: false,
            headers_only: false,
            push: false,
            deliver_group: None,
            prefetch: None,
            batch: None,
        }
    }

    /// Sets the name under which the server keeps what was delivered and acknowledged. Services that share it share the
    /// messages.
    #[must_use]
    pub fn durable(mut self, name: impl Into<Arc<str>>) -> Self {
        self.durable = Some(name.into());
        self
    }

    /// Takes only messages of a subject; without a filter, all of the stream. Several filters add up and need server
    /// 2.10.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_nats::Stream;
    /// let both = Stream::new("ORDERS").durable("stock").filter("orders.placed").filter("orders.cancelled");
    /// assert_eq!(Subscription::from(both).patterns().len(), 2);
    /// ```
    #[must_use]
    pub fn filter(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.filters.push(subject.into());
        self
    }

    /// Creates the stream with these subjects when it is missing, otherwise with the server's defaults: stored in
    /// files, kept without limit. A prefix of a router is put before filters, not before these.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let stream = Stream::new("ORDERS").subjects(["orders.>"]).durable("stock");
    /// ```
    #[must_use]
    pub fn subjects<I>(self, subjects: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.declare(Config { subjects: subjects.into_iter().map(Into::into).collect(), ..Config::default() })
    }

    /// Creates the stream with the client's own configuration when it is missing. The name is that given to
    /// [`new`](Self::new).
    #[must_use]
    pub fn declare(mut self, config: Config) -> Self {
        let name = self.name.to_string();
        self.declared = Some(Config { name, ..config });
        self
    }

    /// Says with which message a new consumer starts; the default is the first. The in-memory broker stores nothing and
    /// refuses any other.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_nats::{StartPosition, Stream};
    /// let news = Stream::new("ORDERS").durable("board").start(StartPosition::Latest);
    /// assert_eq!(Subscription::from(news).needs().len(), 2);
    /// ```
    #[must_use]
    pub const fn start(mut self, start: StartPosition) -> Self {
        self.start = Some(start);
        self
    }

    /// Sets how long the server waits for a settlement before it delivers again; the server's default is 30 s. While a
    /// handler runs the server is told so in time, so that this need not be longer than the longest handler. Zero is
    /// the server's default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_nats::Stream;
    /// let stream = Stream::new("ORDERS").durable("stock").ack_wait(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub const fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = if wait.is_zero() { None } else { Some(within_reach(wait)) };
        self
    }

    /// Sets how many messages may be delivered and unsettled at a time, of all services that share the consumer; the
    /// server's default is 1,000, which zero stands for; -1 is no limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let one_by_one = Stream::new("ORDERS").durable("stock").max_ack_pending(1);
    /// ```
    #[must_use]
    pub const fn max_ack_pending(mut self, messages: i64) -> Self {
        self.max_ack_pending = if messages == 0 { None } else { Some(messages) };
        self
    }

    /// Sets after how many deliveries the server gives a message up. The default is never, and so is zero or less: attempts are
    /// counted and a message is dead-lettered by the framework. The server's last delivery is the last attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let stream = Stream::new("ORDERS").durable("stock").max_deliver(20);
    /// ```
    #[must_use]
    pub const fn max_deliver(mut self, deliveries: i64) -> Self {
        self.max_deliver = Some(if deliveries > 0 { deliveries } else { UNLIMITED });
        self
    }

    /// Waits with every acknowledgement for the server's answer. The default is not to wait: an acknowledgement that is
    /// lost leads to another delivery, never to a loss, and waiting costs one round trip per message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let stream = Stream::new("PAYMENTS").durable("ledger").double_ack();
    /// ```
    #[must_use]
    pub const fn double_ack(mut self) -> Self {
        self.confirmed = true;
        self
    }

    /// Leaves the bodies with the server: a handler sees headers and the size in `Nats-Msg-Size`, and an argument that reads the body
    /// fails. A consumer that exists must be like that too; one that leaves them out unasked is an error at start.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let index = Stream::new("DOCUMENTS").durable("index").headers_only();
    /// ```
    #[must_use]
    pub const fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    /// Sets how many messages a pull consumer holds ready. The default is between 64 and 512, as fast as the handlers
    /// take them, or the size of a batch where that is more. Held messages are kept from being delivered again, and
    /// given back when the service stops.
    ///
    /// At least one message is held and at most 65,536, as many as the client has room for; a larger batch is handed over when its
    /// wait is over. Set less where few slow handlers of many services share a consumer: what one holds, the others do not get.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let slow = Stream::new("REPORTS").durable("printer").prefetch(1);
    /// ```
    #[must_use]
    pub const fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// Lets the server push messages instead of the service pulling them. The default is to pull: that is bounded by
    /// what the service takes, and several services share a pull consumer without a group.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Stream;
    /// let stream = Stream::new("ORDERS").durable("stock").push().deliver_group("stock");
    /// ```
    #[must_use]
    pub const fn push(mut self) -> Self {
        self.push = true;
        self
    }

    /// Joins the deliver group of a push consumer, so that several services share it. Implies [`push`](Self::push).
    #[must_use]
    pub fn deliver_group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.push = true;
        self.deliver_group = Some(name.into());
        self
    }

    /// Hands messages to the handler in batches: when `max_messages` are there, or when the first has waited for
    /// `max_wait`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::broker::Subscription;
    /// use throughline_nats::Stream;
    /// let billing = Stream::new("ORDERS").durable("billing").batch(100, Duration::from_millis(50));
    /// assert!(Subscription::from(billing).batch().is_some());
    /// ```
    #[must_use]
    pub const fn batch(mut self, max_messages: usize, max_wait: Duration) -> Self {
        self.batch = Some(BatchPolicy::new(max_messages, max_wait));
        self
    }

    /// Returns how many messages are held ready, at least and at most.
    pub(crate) fn held(&self) -> RangeInclusive<usize> {
        if let Some(messages) = self.prefetch {
            let messages = messages.clamp(1, LARGEST_PREFETCH);
            return messages..=messages;
        }
        let batch = self.batch.map_or(0, |policy| policy.max_messages).min(LARGEST_PREFETCH);
        batch.max(*PREFETCH.start())..=batch.max(*PREFETCH.end())
    }

    /// Returns what the subscription says about its subjects: the filters, else all the stream has, as far as that is
    /// known here.
    fn known_subjects(&self) -> Vec<Arc<str>> {
        if !self.filters.is_empty() {
            return self.filters.clone();
        }
        self.declared
            .iter()
            .flat_map(|config| config.subjects.iter().map(|subject| Arc::from(subject.as_str())))
            .collect()
    }
}

impl From<Stream> for Subscription {
    fn from(stream: Stream) -> Self {
        let mut patterns = stream.known_subjects().into_iter().map(|subject| Pattern::new(subject, WILDCARDS));
        let mut subscription = match patterns.next() {
            Some(first) => patterns.fold(Self::new(SYSTEM, first), Self::with_pattern),
            None => {
                Self::new(SYSTEM, Pattern::new(">", WILDCARDS)).with_need("the subjects of a stream (name a filter)")
            }
        };
        let mut description = format!("stream `{}`", stream.name);
        if let Some(name) = &stream.durable {
            description = format!("{description}, durable `{name}`");
            subscription = subscription.with_name(Arc::clone(name));
        }
        if let Some(group) = &stream.deliver_group {
            description = format!("{description}, deliver group `{group}`");
            subscription = subscription.with_group(Arc::clone(group));
        }
        if stream.start.is_some_and(|start| start != StartPosition::Earliest) {
            subscription = subscription.with_need("a start position in a stream");
        }
        if let Some(policy) = stream.batch {
            subscription = subscription.with_batch(policy);
        }
        if let Some(most) = stream.max_deliver.filter(|most| *most > 0) {
            subscription = subscription.with_delivery_limit(u32::try_from(most).unwrap_or(u32::MAX));
        }
        subscription.with_description(description).with_native(stream)
    }
}

#[cfg(test)]
mod tests {
    use throughline_core::{App, Handler};

    use super::*;

    #[test]
    fn the_filters_are_the_patterns() {
        let stream = Stream::new("ORDERS").subjects(["orders.>"]).durable("stock").filter("orders.{id}.placed");
        let subscription = Subscription::from(stream);
        assert_eq!(subscription.patterns().iter().map(Pattern::to_wire).collect::<Vec<_>>(), ["orders.*.placed"]);
        assert!(subscription.needs().is_empty());
    }

    #[test]
    fn without_a_filter_the_declared_subjects_are_the_patterns() {
        let subscription = Subscription::from(Stream::new("ORDERS").subjects(["orders.>", "bills"]).durable("stock"));
        assert_eq!(subscription.patterns().iter().map(Pattern::as_str).collect::<Vec<_>>(), ["orders.>", "bills"]);
    }

    #[test]
    fn the_text_names_the_stream_and_the_durable_consumer() {
        let stream = Stream::new("ORDERS").durable("stock").filter("orders.placed");
        assert_eq!(
            Subscription::from(stream.clone()).to_string(),
            "`orders.placed` (stream `ORDERS`, durable `stock`)"
        );
        assert_eq!(
            Subscription::from(stream.deliver_group("all")).to_string(),
            "`orders.placed` (stream `ORDERS`, durable `stock`, deliver group `all`)"
        );
    }

    #[test]
    fn what_only_a_stream_can_do_is_a_need() {
        assert_eq!(Subscription::from(Stream::new("ORDERS").durable("stock")).needs().len(), 1);
        let stream = Stream::new("ORDERS").durable("stock").filter("orders");
        let first = stream.clone().start(StartPosition::Earliest);
        assert!(Subscription::from(first).needs().is_empty());
        assert_eq!(Subscription::from(stream.start(StartPosition::Sequence(7))).needs().len(), 1);
    }

    #[test]
    fn the_prefetch_covers_a_batch() {
        let wait = Duration::from_millis(50);
        assert_eq!(Stream::new("S").held(), 64..=512);
        assert_eq!(Stream::new("S").batch(500, wait).held(), 500..=512);
        assert_eq!(Stream::new("S").batch(1000, wait).held(), 1000..=1000);
        assert_eq!(Stream::new("S").batch(10, wait).held(), 64..=512);
        assert_eq!(Stream::new("S").prefetch(0).held(), 1..=1);
        for many in [Stream::new("S").prefetch(usize::MAX), Stream::new("S").batch(usize::MAX, wait)] {
            assert_eq!(many.held(), LARGEST_PREFETCH..=LARGEST_PREFETCH, "what the server and the client can count");
        }
    }

    #[test]
    fn a_limit_of_deliveries_is_known_to_every_broker() {
        let limit = |deliveries| {
            let stream = Stream::new("S").filter("orders").max_deliver(deliveries);
            (stream.max_deliver, Subscription::from(stream).delivery_limit())
        };
        assert_eq!(limit(3), (Some(3), Some(3)));
        assert_eq!(limit(i64::MAX), (Some(i64::MAX), Some(u32::MAX)));
        for none in [0, -1, i64::MIN] {
            assert_eq!(limit(none), (Some(-1), None), "no limit has one name at the server");
        }
        assert_eq!(Subscription::from(Stream::new("S").filter("orders")).delivery_limit(), None);
    }

    #[test]
    fn what_the_server_has_a_default_for_is_not_asked_for() {
        let stream = Stream::new("S").ack_wait(Duration::ZERO).max_ack_pending(0);
        assert_eq!((stream.ack_wait, stream.max_ack_pending), (None, None));
        let longest = Stream::new("S").ack_wait(Duration::MAX).ack_wait.unwrap();
        assert!(i64::try_from(longest.as_nanos()).is_ok(), "it goes over the wire as such a number");
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_broker_delivers_as_often_as_the_server_would() {
        async fn fail(_order: String) -> Result<(), std::fmt::Error> {
            Err(std::fmt::Error)
        }
        let orders = Stream::new("ORDERS").durable("stock").filter("orders").max_deliver(2);
        let test = throughline_testing::start(App::new().subscribe(orders, fail.dead_letter("dead"))).await;
        test.publish("orders", "42").await;
        assert_eq!(test.next::<String>("dead").await, "42");
        let handled = test.capture().spans().into_iter().filter(|span| span.name == "process orders").count();
        assert_eq!(handled, 2, "the last delivery is the last attempt");
    }
}

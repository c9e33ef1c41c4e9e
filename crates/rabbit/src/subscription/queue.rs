use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable};
use throughline_core::broker::BatchPolicy;
use tracing::warn;

use super::arguments::{self, whole};
use super::choices::{Overflow, StreamOffset};
use super::exchange::{Declares, Exchange};

/// The argument of a queue that says how often it delivers a message again.
pub(super) const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// How many bytes of a tag are those that the user chose; the rest makes it unique.
const LONGEST_TAG_BEGIN: usize = 100;

/// What to consume: a queue, with its bindings.
///
/// It is declared at the start: durable, not exclusive, a classic queue unless [`quorum`](Self::quorum) or [`stream`](Self::stream) says
/// otherwise. What the server has of another form is an error that names both. A team that declares elsewhere says
/// [`passive`](Self::passive) or [`no_declare`](Self::no_declare).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::broker::Subscription;
/// use throughline_rabbit::{Exchange, Queue};
///
/// let stock = Queue::new("stock").quorum().delivery_limit(5).bind(Exchange::topic("orders"), "placed.*");
/// let subscription = Subscription::from(stock.dead_letter_exchange("dead", "stock"));
/// assert_eq!(subscription.destination(), "stock");
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) declares: Declares,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: FieldTable,
    pub(crate) bindings: Vec<Binding>,
    /// What is wrong with an argument, which is told at the start.
    pub(crate) wrong: Option<String>,
    pub(crate) prefetch: Option<u16>,
    pub(crate) consumer_tag: Option<Arc<str>>,
    pub(crate) consumer_priority: Option<i32>,
    pub(crate) exclusive_consumer: bool,
    pub(crate) acks_on_receipt: bool,
    pub(crate) retries_in_place: bool,
    pub(crate) batch: Option<BatchPolicy>,
}

/// What a queue is on the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Classic,
    Quorum,
    Stream(StreamOffset),
}

/// How a queue is bound to an exchange.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) exchange: Exchange,
    pub(crate) key: Arc<str>,
    pub(crate) arguments: FieldTable,
}

impl Queue {
    /// Creates a durable classic queue.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Classic,
            declares: Declares::As(lapin::ExchangeKind::Direct),
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: FieldTable::default(),
            bindings: Vec::new(),
            wrong: None,
            prefetch: None,
            consumer_tag: None,
            consumer_priority: None,
            exclusive_consumer: false,
            acks_on_receipt: false,
            retries_in_place: false,
            batch: None,
        }
    }

    /// Creates a queue for this connection alone, which the server names and removes with the connection. After a reconnect it is another
    /// queue with another name; what was in it is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::{Exchange, Queue};
    /// let prices = Queue::generated().bind(Exchange::fanout("prices"), "");
    /// # let _ = prices;
    /// ```
    #[must_use]
    pub fn generated() -> Self {
        Self { durable: false, exclusive: true, auto_delete: true, ..Self::new("") }
    }

    /// Makes it a quorum queue: replicated, and it counts how often it delivers a message.
    #[must_use]
    pub fn quorum(mut self) -> Self {
        self.kind = Kind::Quorum;
        self
    }

    /// Makes it a stream, read from that place on. Its messages stay, whatever is done with them; so none is tried again by the server.
    #[must_use]
    pub fn stream(mut self, from: StreamOffset) -> Self {
        self.kind = Kind::Stream(from);
        self
    }

    /// Binds it to an exchange with a key, or a pattern where the exchange has such. A token `{name}` stands for one word, as `*`, and
    /// telemetry shows it by that name.
    #[must_use]
    pub fn bind(self, exchange: Exchange, key: impl Into<Arc<str>>) -> Self {
        self.bind_with(exchange, key, [])
    }

    /// Binds it to a headers exchange: a message comes when all these headers are equal. An exchange of another kind is refused at the
    /// start, since it does not look at headers.
    ///
    /// # Examples
    ///
    /// ```
    /// use lapin::types::AMQPValue;
    /// use throughline_rabbit::{Exchange, Queue};
    ///
    /// let acme = [("tenant", AMQPValue::LongString("acme".into()))];
    /// let queue = Queue::new("acme").bind_headers(Exchange::headers("by-tenant"), acme);
    /// # let _ = queue;
    /// ```
    #[must_use]
    pub fn bind_headers<'a>(self, exchange: Exchange, headers: impl IntoIterator<Item = (&'a str, AMQPValue)>) -> Self {
        self.bind_matching(exchange, "all", headers)
    }

    /// Binds it to a headers exchange: a message comes when any of these headers is equal.
    #[must_use]
    pub fn bind_any_header<'a>(
        self,
        exchange: Exchange,
        headers: impl IntoIterator<Item = (&'a str, AMQPValue)>,
    ) -> Self {
        self.bind_matching(exchange, "any", headers)
    }

    /// Binds it to an exchange with a key and arguments, as exchanges of a plug-in take them.
    ///
    /// # Examples
    ///
    /// ```
    /// use lapin::types::AMQPValue;
    /// use throughline_rabbit::{Exchange, Queue};
    ///
    /// let any = [("x-match", AMQPValue::LongString("any-with-x".into())), ("x-tenant", AMQPValue::LongString("acme".into()))];
    /// let queue = Queue::new("acme").bind_with(Exchange::headers("by-tenant"), "", any);
    /// # let _ = queue;
    /// ```
    #[must_use]
    pub fn bind_with<'a>(
        mut self,
        exchange: Exchange,
        key: impl Into<Arc<str>>,
        arguments: impl IntoIterator<Item = (&'a str, AMQPValue)>,
    ) -> Self {
        let arguments = arguments::table(&mut self.wrong, arguments);
        self.bindings.push(Binding { exchange, key: key.into(), arguments });
        self
    }

    fn bind_matching<'a>(
        self,
        exchange: Exchange,
        matching: &str,
        headers: impl IntoIterator<Item = (&'a str, AMQPValue)>,
    ) -> Self {
        let how = ("x-match", AMQPValue::LongString(matching.into()));
        self.bind_with(exchange, "", std::iter::once(how).chain(headers))
    }

    /// Asks whether the queue is there, in place of declaring it; its exchanges are declared as they say.
    #[must_use]
    pub fn passive(mut self) -> Self {
        self.declares = Declares::Passive;
        self
    }

    /// Declares nothing, neither queue nor exchanges nor bindings: those that are named here say only how messages are shown. The server is
    /// asked whether the queue is there.
    #[must_use]
    pub fn no_declare(mut self) -> Self {
        self.declares = Declares::Nothing;
        self
    }

    /// Makes it a queue of this connection alone, which the server removes with the connection.
    #[must_use]
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Lets the server remove the queue when its last consumer goes.
    #[must_use]
    pub const fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Lets the queue go when the server stops. Only for exclusive queues: new servers take no others.
    #[must_use]
    pub const fn transient(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Sets where the server sends messages that were rejected, expired or delivered too often: an exchange and a key, the empty
    /// exchange for a queue.
    #[must_use]
    pub fn dead_letter_exchange(self, exchange: &str, key: &str) -> Self {
        let queue = self.argument("x-dead-letter-exchange", AMQPValue::LongString(exchange.into()));
        if key.is_empty() {
            queue
        } else {
            queue.argument("x-dead-letter-routing-key", AMQPValue::LongString(key.into()))
        }
    }

    /// Keeps a message until its dead letter has arrived, in a quorum queue that rejects what is published when it is full. Without it a
    /// dead letter may be lost with the server.
    #[must_use]
    pub fn dead_letter_at_least_once(self) -> Self {
        self.argument("x-dead-letter-strategy", AMQPValue::LongString("at-least-once".into()))
    }

    /// Sets how long a message may wait.
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", millis(ttl))
    }

    /// Lets the server remove the queue when nobody has used it for so long.
    #[must_use]
    pub fn expires(self, after: Duration) -> Self {
        self.argument("x-expires", millis(after))
    }

    /// Sets how many messages may wait.
    #[must_use]
    pub fn max_length(self, messages: u64) -> Self {
        self.argument("x-max-length", whole(messages))
    }

    /// Sets how many bytes of bodies may wait.
    #[must_use]
    pub fn max_bytes(self, bytes: u64) -> Self {
        self.argument("x-max-length-bytes", whole(bytes))
    }

    /// Sets what happens when the queue is full.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.argument("x-overflow", AMQPValue::LongString(overflow.name().into()))
    }

    /// Sets how many priorities there are (classic queues). The server hands over up to the prefetch at a time, so that a message of a
    /// high priority waits for those that were handed over before.
    #[must_use]
    pub fn max_priority(self, priorities: u8) -> Self {
        self.argument("x-max-priority", AMQPValue::ShortShortUInt(priorities))
    }

    /// Sets how often a quorum queue delivers a message again. The delivery after that is the last one: a failed message is dead-lettered.
    #[must_use]
    pub fn delivery_limit(self, again: u32) -> Self {
        self.argument(DELIVERY_LIMIT, whole(again.into()))
    }

    /// Lets one consumer at a time receive, so that the order holds over several processes.
    #[must_use]
    pub fn single_active_consumer(self) -> Self {
        self.argument("x-single-active-consumer", AMQPValue::Boolean(true))
    }

    /// Sets any argument by its name.
    #[must_use]
    pub fn argument(mut self, name: &str, value: AMQPValue) -> Self {
        arguments::set(&mut self.arguments, &mut self.wrong, name, &value);
        self
    }

    /// Sets how many messages the server hands over before they are settled. The default is twice as many as are handled at a time, requests
    /// included: 128 where the app sets nothing, 16 at least and 2,000 at most. With 1 the server waits for each settlement.
    #[must_use]
    pub const fn prefetch(mut self, messages: u16) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// Sets how the consumer's tag begins, 100 bytes at most; a number makes it unique. The default is the name of the queue.
    #[must_use]
    pub fn consumer_tag(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.consumer_tag = Some(tag.into());
        self
    }

    /// Sets the consumer's priority: the server hands messages to those of the highest while they take them.
    #[must_use]
    pub const fn consumer_priority(mut self, priority: i32) -> Self {
        self.consumer_priority = Some(priority);
        self
    }

    /// Makes it the only consumer: others are refused.
    #[must_use]
    pub const fn exclusive_consumer(mut self) -> Self {
        self.exclusive_consumer = true;
        self
    }

    /// Acknowledges each message when it is handed to its handler, and not when that is done: nothing is tried again by the server, and what
    /// a crash interrupts is lost. It is for messages that may be lost and must not hold up others. The prefetch holds as ever, and what was
    /// not handed over is not lost; a message that was just before the connection is lost may come again.
    ///
    /// The server's own way, which is to forget a message when it has sent it, is not offered: nothing would bound how many wait in the
    /// memory of the service.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::Queue;
    /// // A position that was missed is followed by a newer one.
    /// let positions = Queue::new("positions").ack_on_receipt();
    /// # let _ = positions;
    /// ```
    #[must_use]
    pub const fn ack_on_receipt(mut self) -> Self {
        self.acks_on_receipt = true;
        self
    }

    /// Lets messages wait for their next attempt in the service, for a quarter of an hour at most, and declares no delay queues. They count as not settled
    /// meanwhile, so that the prefetch bounds how many wait. A queue with a name of more than 245 bytes needs this, since the names of its
    /// delay queues would be too long.
    #[must_use]
    pub const fn retry_in_place(mut self) -> Self {
        self.retries_in_place = true;
        self
    }

    /// Hands messages to the handler in batches: when `max_messages` are there, or when the first has waited for `max_wait`.
    #[must_use]
    pub const fn batch(mut self, max_messages: usize, max_wait: Duration) -> Self {
        self.batch = Some(BatchPolicy::new(max_messages, max_wait));
        self
    }

    pub(crate) fn is_quorum(&self) -> bool {
        self.kind == Kind::Quorum
    }

    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    pub(crate) fn is_generated(&self) -> bool {
        self.name.is_empty()
    }

    /// Tells whether the server removes it, with what is in it, when the connection ends.
    pub(crate) fn goes_with_connection(&self) -> bool {
        self.exclusive || self.is_generated()
    }

    /// Tells whether the server hands messages to one consumer at a time.
    pub(crate) fn is_single_active(&self) -> bool {
        self.arguments.inner().get("x-single-active-consumer") == Some(&AMQPValue::Boolean(true))
    }

    pub(crate) const fn acks_on_receipt(&self) -> bool {
        self.acks_on_receipt
    }

    pub(crate) fn retries_in_place(&self) -> bool {
        self.retries_in_place || self.goes_with_connection() || self.is_stream() || self.declares == Declares::Nothing
    }

    pub(crate) const fn chosen_prefetch(&self) -> Option<u16> {
        self.prefetch
    }

    /// How often the server delivers a message at most: new ones have a limit of their own.
    pub(crate) fn most_deliveries(&self) -> Option<u32> {
        const OF_SERVER: i64 = 20;
        if !self.is_quorum() {
            return None;
        }
        // A negative limit is none.
        let again = arguments::number(&self.arguments, DELIVERY_LIMIT).unwrap_or(OF_SERVER);
        u32::try_from(again).ok().map(|again| again.saturating_add(1))
    }

    /// How often the server delivers a message at most where that is said here.
    pub(super) fn chosen_deliveries(&self) -> Option<u32> {
        self.most_deliveries().filter(|_| self.arguments.contains_key(DELIVERY_LIMIT))
    }

    pub(crate) fn unique_tag(&self) -> String {
        let begin = self.consumer_tag.as_deref().unwrap_or(&self.name);
        // Bytes are counted and not letters.
        let fits = |(at, letter): &(usize, char)| at + letter.len_utf8() <= LONGEST_TAG_BEGIN;
        let begin: String = begin.char_indices().take_while(fits).map(|(_, letter)| letter).collect();
        format!("{begin}-{:016x}", fastrand::u64(..))
    }

    pub(crate) fn consume_options(&self) -> BasicConsumeOptions {
        BasicConsumeOptions { exclusive: self.exclusive_consumer, ..BasicConsumeOptions::default() }
    }

    /// Returns where reading begins; `None` unless it is a stream.
    pub(crate) const fn stream_offset(&self) -> Option<StreamOffset> {
        match self.kind {
            Kind::Stream(from) => Some(from),
            _ => None,
        }
    }

    /// Returns the arguments of a consumer. A stream is read from where it says, or goes on at another place.
    pub(crate) fn consume_arguments(&self, goes_on: Option<StreamOffset>) -> FieldTable {
        let mut arguments = FieldTable::default();
        if let Some(priority) = self.consumer_priority {
            arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        }
        if let Some(from) = self.stream_offset() {
            arguments.insert("x-stream-offset".into(), goes_on.unwrap_or(from).to_value());
        }
        arguments
    }

    /// Returns the arguments of the declaration. They always say what kind of queue it is, since a virtual host may have a default.
    pub(crate) fn declared_arguments(&self) -> FieldTable {
        let mut arguments = self.arguments.clone();
        let kind = match self.kind {
            Kind::Classic => "classic",
            Kind::Quorum => "quorum",
            Kind::Stream(_) => "stream",
        };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        arguments
    }

    pub(super) fn text_argument(&self, name: &str) -> Option<&str> {
        arguments::text(&self.arguments, name)
    }

    /// Warns of a quorum queue whose failed messages the server drops without a word.
    pub(crate) fn warn_of_losses(&self) {
        let is_declared = matches!(self.declares, Declares::As(_));
        let says = |name: &str| self.arguments.contains_key(name);
        if self.is_quorum() && is_declared && !says(DELIVERY_LIMIT) && !says("x-dead-letter-exchange") {
            warn!(
                destination = %self,
                "a quorum queue without a dead letter exchange and a delivery limit: new servers drop a message without a word after 20 more \
                 deliveries; set `dead_letter_exchange`, or `delivery_limit`"
            );
        }
    }
}

fn millis(time: Duration) -> AMQPValue {
    whole(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use std::time::UNIX_EPOCH;

    use throughline_core::broker::Subscription;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber as Collector};

    use super::*;

    #[test]
    fn the_limit_of_deliveries_is_that_of_the_server() {
        let most = |queue: Queue| (queue.most_deliveries(), Subscription::from(queue).delivery_limit());
        assert_eq!(most(Queue::new("q")), (None, None));
        assert_eq!(most(Queue::new("q").quorum()), (Some(21), None), "new servers have one of their own");
        assert_eq!(most(Queue::new("q").quorum().delivery_limit(4)), (Some(5), Some(5)));
        let limit = |value| Queue::new("q").quorum().argument(DELIVERY_LIMIT, value);
        assert_eq!(most(limit(AMQPValue::LongInt(4))), (Some(5), Some(5)));
        assert_eq!(most(limit(AMQPValue::LongInt(-1))), (None, None), "no limit");
    }

    /// Counts warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl Collector for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_quorum_queue_that_loses_what_fails_too_often_is_warned_about() {
        let warns = |queue: Queue| {
            let warnings = Warnings::default();
            tracing::subscriber::with_default(warnings.clone(), || queue.warn_of_losses());
            warnings.0.load(Ordering::Relaxed) == 1
        };
        let quorum = || Queue::new("q").quorum();
        assert!(warns(quorum()));
        assert!(!warns(quorum().delivery_limit(5)));
        assert!(!warns(quorum().dead_letter_exchange("dead", "q")));
        assert!(!warns(Queue::new("q")));
        assert!(!warns(quorum().passive()) && !warns(quorum().no_declare()), "others say what it has");
    }

    #[test]
    fn a_tag_is_unique_and_never_longer_than_the_protocol_takes() {
        for letter in ["q", "ü", "語", "🐇"] {
            let name = letter.repeat(255 / letter.len());
            let tags = [Queue::new(name.clone()), Queue::new("q").consumer_tag(name)].map(|queue| {
                assert_ne!(queue.unique_tag(), queue.unique_tag());
                queue.unique_tag()
            });
            for tag in tags {
                assert!(tag.len() <= 255 && tag.starts_with(letter), "{} bytes of {letter}", tag.len());
            }
        }
    }

    #[test]
    fn each_builder_says_its_argument() {
        let queue = Queue::new("q")
            .dead_letter_exchange("dead", "q")
            .message_ttl(Duration::from_secs(2))
            .expires(Duration::from_secs(3))
            .max_length(4)
            .max_bytes(5)
            .overflow(Overflow::DropHead)
            .max_priority(6)
            .single_active_consumer()
            .argument("x-queue-leader-locator", AMQPValue::LongString("balanced".into()));
        let text = |text: &str| AMQPValue::LongString(text.into());
        let expected = [
            ("x-dead-letter-exchange", text("dead")),
            ("x-dead-letter-routing-key", text("q")),
            ("x-expires", whole(3_000)),
            ("x-max-length", whole(4)),
            ("x-max-length-bytes", whole(5)),
            ("x-max-priority", AMQPValue::ShortShortUInt(6)),
            ("x-message-ttl", whole(2_000)),
            ("x-overflow", text("drop-head")),
            ("x-queue-leader-locator", text("balanced")),
            ("x-queue-type", text("classic")),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ];
        let declared = queue.declared_arguments();
        let declared: Vec<_> = declared.inner().iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(declared, expected);
    }

    #[test]
    fn a_stream_is_read_from_where_it_says_and_then_goes_on() {
        let offset = |from, next| {
            let arguments = Queue::new("q").stream(from).consume_arguments(next);
            arguments.inner().get("x-stream-offset").cloned()
        };
        let text = |text: &str| Some(AMQPValue::LongString(text.into()));
        assert_eq!(offset(StreamOffset::First, None), text("first"));
        assert_eq!(offset(StreamOffset::Ago(Duration::from_secs(90)), None), text("90s"));
        assert_eq!(
            offset(StreamOffset::Since(UNIX_EPOCH + Duration::from_secs(7)), None),
            Some(AMQPValue::Timestamp(7))
        );
        assert_eq!(offset(StreamOffset::First, Some(StreamOffset::At(8))), Some(AMQPValue::LongLongInt(8)));
        let began = UNIX_EPOCH + Duration::from_secs(100);
        let since = |from: StreamOffset| offset(from, Some(from.since(began)));
        // Less what the clocks may differ.
        assert_eq!(since(StreamOffset::Next), Some(AMQPValue::Timestamp(95)));
        assert_eq!(since(StreamOffset::Ago(Duration::from_secs(90))), Some(AMQPValue::Timestamp(5)));
        assert_eq!(since(StreamOffset::Ago(Duration::MAX)), Some(AMQPValue::Timestamp(0)));
        assert_eq!(since(StreamOffset::First), text("first"));
    }
}

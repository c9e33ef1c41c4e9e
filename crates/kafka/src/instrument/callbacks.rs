use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Partitioner, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque;
use rdkafka::{ClientContext, Message, Statistics};
use throughline_core::telemetry::Sending;
use tracing::error;

use super::report::Reported;

/// The context of a [`BaseProducer`] or [`ThreadedProducer`] whose records have spans: around the user's own context, which
/// gets every callback as before. A callback that panics is logged as an error, and the producer goes on.
///
/// # Examples
///
/// ```
/// use rdkafka::ClientConfig;
/// use rdkafka::error::KafkaError;
/// use rdkafka::message::DeliveryResult;
/// use rdkafka::producer::{BaseProducer, ProducerContext};
/// use throughline_kafka::ProducerTelemetry;
///
/// struct Orders; // the user's own
///
/// impl rdkafka::ClientContext for Orders {}
///
/// impl ProducerContext for Orders {
///     type DeliveryOpaque = usize;
///
///     fn delivery(&self, result: &DeliveryResult<'_>, order: usize) {
///         println!("order {order}: {}", result.is_ok());
///     }
/// }
///
/// let producer: BaseProducer<_> = ClientConfig::new()
///     .set("bootstrap.servers", "localhost:9092")
///     .create_with_context(ProducerTelemetry::new(Orders))?;
/// # let _ = producer;
/// # Ok::<(), KafkaError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ProducerTelemetry<C> {
    context: C,
}

impl<C> ProducerTelemetry<C> {
    /// Puts it around the user's own context.
    ///
    /// # Examples
    ///
    /// ```
    /// use rdkafka::producer::DefaultProducerContext;
    /// use throughline_kafka::ProducerTelemetry;
    /// let context = ProducerTelemetry::new(DefaultProducerContext);
    /// # let _ = context;
    /// ```
    #[must_use]
    pub const fn new(context: C) -> Self {
        Self { context }
    }

    /// Returns the user's own context.
    #[must_use]
    pub const fn context(&self) -> &C {
        &self.context
    }
}

impl<C: ClientContext> ClientContext for ProducerTelemetry<C> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = C::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        guarded("log", || self.context.log(level, fac, log_message));
    }

    fn stats(&self, statistics: Statistics) {
        guarded("stats", || self.context.stats(statistics));
    }

    fn stats_raw(&self, statistics: &[u8]) {
        guarded("stats_raw", || self.context.stats_raw(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        guarded("error", || self.context.error(error, reason));
    }

    fn generate_oauth_token(&self, oauthbearer_config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.context.generate_oauth_token(oauthbearer_config)
    }
}

impl<C, Part> ProducerContext<Part> for ProducerTelemetry<C>
where
    C: ProducerContext<Part>,
    Part: Partitioner,
{
    type DeliveryOpaque = Box<PendingDelivery<C::DeliveryOpaque>>;

    fn delivery(&self, delivery_result: &DeliveryResult<'_>, delivery_opaque: Self::DeliveryOpaque) {
        let PendingDelivery { sending, reported, opaque } = *delivery_opaque;
        match delivery_result {
            Ok(message) => reported.succeed(sending, message.partition(), message.offset()),
            Err((failed, _)) => reported.fail(sending, failed),
        }
        guarded("delivery", || self.context.delivery(delivery_result, opaque));
    }

    fn get_custom_partitioner(&self) -> Option<&Part> {
        self.context.get_custom_partitioner()
    }
}

/// Runs a callback of the user's context. One that panics is heard of and ends there: it would end the thread that polls a
/// [`ThreadedProducer`], and no record be reported any more, or leave the reports behind it unread.
fn guarded(callback: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        error!(callback, "a callback of the producer's context panicked; the producer goes on");
    }
}

/// The delivery opaque of a record that has a span, and holds the user's own. Dropped without a delivery report, the span is
/// a cancelled one.
pub struct PendingDelivery<D> {
    sending: Sending,
    reported: Reported,
    opaque: D,
}

impl<D> PendingDelivery<D> {
    pub(super) const fn new(sending: Sending, reported: Reported, opaque: D) -> Self {
        Self { sending, reported, opaque }
    }

    /// Ends the span of a record that the client did not take.
    pub(super) fn take_back(self, failed: &KafkaError) -> D {
        self.reported.fail(self.sending, failed);
        self.opaque
    }
}

impl<D> fmt::Debug for PendingDelivery<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingDelivery").finish_non_exhaustive()
    }
}

/// A producer of the client that tells a context what became of a record: [`BaseProducer`] and [`ThreadedProducer`], with a
/// [`ProducerTelemetry`] around the user's context.
pub trait CallbackProducer: sealed::Sealed {
    /// The user's own delivery opaque.
    type Opaque: IntoOpaque;

    #[doc(hidden)]
    #[allow(clippy::type_complexity, clippy::result_large_err)] // The client's own type: the record comes back.
    fn enqueue<'a, K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
        &self,
        record: BaseRecord<'a, K, P, Box<PendingDelivery<Self::Opaque>>>,
    ) -> Result<(), (KafkaError, BaseRecord<'a, K, P, Box<PendingDelivery<Self::Opaque>>>)>;
}

impl<C, Part> CallbackProducer for BaseProducer<ProducerTelemetry<C>, Part>
where
    C: ProducerContext<Part>,
    Part: Partitioner,
{
    type Opaque = C::DeliveryOpaque;

    fn enqueue<'a, K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
        &self,
        record: BaseRecord<'a, K, P, Box<PendingDelivery<Self::Opaque>>>,
    ) -> Result<(), (KafkaError, BaseRecord<'a, K, P, Box<PendingDelivery<Self::Opaque>>>)> {
        self.send(record)
    }
}

impl<C, Part> CallbackProducer for ThreadedProducer<ProducerTelemetry<C>, Part>
where
    C: ProducerContext<Part> + 'static,
    Part: Partitioner,
{
    type Opaque = C::DeliveryOpaque;

    fn enqueue<'a, K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
        &self,
        record: BaseRecord<'a, K, P, Box<PendingDelivery<Self::Opaque>>>,
    ) -> Result<(), (KafkaError, BaseRecord<'a, K, P, Box<PendingDelivery<Self::Opaque>>>)> {
        self.send(record)
    }
}

mod sealed {
    use rdkafka::producer::{BaseProducer, Partitioner, ProducerContext, ThreadedProducer};

    use super::ProducerTelemetry;

    /// What keeps the trait to the client's own producers.
    pub trait Sealed {}

    impl<C: ProducerContext<Part>, Part: Partitioner> Sealed for BaseProducer<ProducerTelemetry<C>, Part> {}
    impl<C: ProducerContext<Part> + 'static, Part: Partitioner> Sealed for ThreadedProducer<ProducerTelemetry<C>, Part> {}
}

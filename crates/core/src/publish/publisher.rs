use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;

use super::hand_over::HandOver;
use super::publishing::{Publishing, Requesting};
use crate::broker::{BoxFuture, Broker, ErrorReply, Publish, PublishError};
use crate::codec::Encode;
use crate::message::{Delivery, Destination, Envelope, Receipt};
use crate::middleware::{Middleware, NextPublish, Outlet, SendSpan, TelemetryMiddleware, outgoing, target};
use crate::telemetry::{Instrumentation, Producer, Scope, publish_context, semconv};

/// A publisher on one broker: in a handler as an argument, elsewhere as taken from the broker.
///
/// What it publishes continues the current trace and carries the current baggage. Cloning is cheap.
///
/// # Examples
///
/// ```
/// use throughline_core::{PublishError, Publisher};
///
/// async fn checkout(publisher: Publisher) -> Result<(), PublishError> {
///     publisher.publish("orders.placed", "{}").key("42").header("source", "web").await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
    scope: Option<Scope>,
}

struct Inner {
    transport: Arc<dyn Publish>,
    middleware: Vec<Arc<dyn Middleware>>,
    telemetry: Telemetry,
}

/// Where the telemetry of a publisher comes from.
enum Telemetry {
    /// From the global providers; made with the first message that is published.
    Globals(OnceLock<Producer>),
    Given(Producer),
    Off,
}

impl Publisher {
    /// Creates a publisher for a broker, with telemetry on the global providers, which may be set later.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Publisher, broker::Broker};
    ///
    /// fn publisher(broker: &impl Broker) -> Publisher {
    ///     Publisher::new(broker)
    /// }
    /// ```
    #[must_use]
    pub fn new(broker: &impl Broker) -> Self {
        Self::from_transport(broker.transport())
    }

    /// Creates a publisher from what publishes; adapters use it for their own `publisher()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::{Publisher, broker::Publish};
    ///
    /// fn publisher(transport: Arc<dyn Publish>) -> Publisher {
    ///     Publisher::from_transport(transport)
    /// }
    /// ```
    #[must_use]
    pub fn from_transport(transport: Arc<dyn Publish>) -> Self {
        Self::assemble(transport, Vec::new(), Telemetry::Globals(OnceLock::new()))
    }

    pub(crate) fn of_app(
        transport: Arc<dyn Publish>,
        middleware: Vec<Arc<dyn Middleware>>,
        telemetry: Option<&Instrumentation>,
    ) -> Self {
        let telemetry =
            telemetry.map_or(Telemetry::Off, |engine| Telemetry::Given(engine.producer(transport.system())));
        Self::assemble(transport, middleware, telemetry)
    }

    fn assemble(transport: Arc<dyn Publish>, middleware: Vec<Arc<dyn Middleware>>, telemetry: Telemetry) -> Self {
        Self { inner: Arc::new(Inner { transport, middleware, telemetry }), scope: None }
    }

    /// Uses this telemetry instead of the global providers.
    #[must_use]
    pub fn telemetry(&self, telemetry: impl Into<TelemetryMiddleware>) -> Self {
        let transport = Arc::clone(&self.inner.transport);
        let producer = telemetry.into().instrumentation().producer(transport.system());
        self.with_parts(transport, self.inner.middleware.clone(), Telemetry::Given(producer))
    }

    /// Makes no spans and metrics, and touches no headers.
    #[must_use]
    pub fn without_telemetry(&self) -> Self {
        self.with_parts(Arc::clone(&self.inner.transport), self.inner.middleware.clone(), Telemetry::Off)
    }

    /// Runs middleware around everything this publisher publishes, inside what is there already.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Middleware, Publisher};
    ///
    /// fn audited(publisher: Publisher, audit: impl Middleware) -> Publisher {
    ///     publisher.middleware(audit)
    /// }
    /// ```
    #[must_use]
    pub fn middleware(&self, middleware: impl Middleware) -> Self {
        let mut chain = self.inner.middleware.clone();
        chain.push(Arc::new(middleware));
        let telemetry = match &self.inner.telemetry {
            Telemetry::Globals(_) => Telemetry::Globals(OnceLock::new()),
            Telemetry::Given(producer) => Telemetry::Given(producer.clone()),
            Telemetry::Off => Telemetry::Off,
        };
        self.with_parts(Arc::clone(&self.inner.transport), chain, telemetry)
    }

    /// A changed publisher still belongs to the message of the handler it was taken in.
    fn with_parts(
        &self,
        transport: Arc<dyn Publish>,
        middleware: Vec<Arc<dyn Middleware>>,
        telemetry: Telemetry,
    ) -> Self {
        Self { scope: self.scope.clone(), ..Self::assemble(transport, middleware, telemetry) }
    }

    pub(crate) fn within(&self, scope: Scope) -> Self {
        Self { inner: Arc::clone(&self.inner), scope: Some(scope) }
    }

    /// Publishes one message; awaited, it returns when the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// The awaited call fails when the body cannot be encoded, or the broker refuses the message or does not confirm it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{PublishError, Publisher};
    /// # async fn example(publisher: Publisher) -> Result<(), PublishError> {
    /// publisher.publish("orders.placed", "{}").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish(&self, destination: impl Into<Destination>, body: impl Encode) -> Publishing<'_> {
        Publishing::new(self, encode(destination, body).map(Some))
    }

    /// Publishes several messages to one destination: a create span for each and one send span. An empty batch does nothing.
    ///
    /// # Errors
    ///
    /// The awaited call fails with kind `Partial` when some were not published; [`PublishError::failed`] says which.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{PublishError, Publisher};
    /// # async fn example(publisher: Publisher) -> Result<(), PublishError> {
    /// publisher.publish_batch("orders.placed", ["a", "b"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_batch<B: Encode>(
        &self,
        destination: impl Into<Destination>,
        bodies: impl IntoIterator<Item = B>,
    ) -> Publishing<'_> {
        // Each gets the destination of the whole.
        let encode = |body| encode(Destination::from_static(""), body);
        let messages: Result<Vec<Envelope>, PublishError> = bodies.into_iter().map(encode).collect();
        let batch = messages.map(|messages| (!messages.is_empty()).then(|| Envelope::batch(destination, messages)));
        Publishing::new(self, batch)
    }

    /// Publishes a prepared message or batch.
    ///
    /// # Errors
    ///
    /// The awaited call fails as [`publish`](Self::publish) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Envelope, PublishError, Publisher};
    /// # async fn example(publisher: Publisher) -> Result<(), PublishError> {
    /// publisher.publish_envelope(Envelope::new("orders.placed", "{}").with_id("m1")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_envelope(&self, envelope: Envelope) -> Publishing<'_> {
        Publishing::new(self, Ok(Some(envelope)))
    }

    /// Publishes a message and waits for its reply, 10 s by default.
    ///
    /// # Errors
    ///
    /// The awaited call fails when nobody listens, no reply came in time, the reply cannot be decoded, or the broker knows no requests.
    /// Where the other side answers that the request failed, the kind is `RequestFailed`, and [`PublishError::error_reply`] has what it
    /// said.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{PublishError, Publisher};
    /// # use std::time::Duration;
    /// # async fn example(publisher: Publisher) -> Result<(), PublishError> {
    /// let price: String = publisher.request("prices.get", "{}").timeout(Duration::from_secs(2)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn request<T>(&self, destination: impl Into<Destination>, body: impl Encode) -> Requesting<'_, T> {
        Requesting::new(self, encode(destination, body))
    }

    /// Whether anything stands between a publish and the transport.
    pub(super) fn has_middleware(&self) -> bool {
        !self.inner.middleware.is_empty()
    }

    /// Publishes through the middleware.
    pub(super) async fn send(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let publishing = NextPublish::new(&self.inner.middleware, self).run(envelope);
        match &self.scope {
            // Middleware is to see the message's context too, also in a task that has none.
            Some(scope) => publishing.with_context(publish_context(Some(scope))).await,
            None => publishing.await,
        }
    }

    /// Publishes without middleware.
    #[inline]
    pub(super) fn hand_over(&self, mut envelope: Envelope) -> HandOver<'_> {
        let transport = self.inner.transport.as_ref();
        let passes = |producer: &&Producer| {
            self.scope.is_none() && !envelope.is_batch() && producer.passes_through(envelope.headers())
        };
        let span = self
            .producer()
            .filter(|producer| !passes(producer))
            .map(|producer| SendSpan::start(producer, &publish_context(self.scope.as_ref()), transport, &mut envelope));
        HandOver::start(transport, envelope, span)
    }

    /// Requests go through telemetry but not through middleware, whose `publish` knows no reply.
    pub(super) async fn ask(&self, mut envelope: Envelope, timeout: Duration) -> Result<Delivery, PublishError> {
        let transport = self.inner.transport.as_ref();
        let Some(producer) = self.producer() else { return request(transport, envelope, timeout).await };
        let parent = publish_context(self.scope.as_ref());
        let destination = envelope.destination().clone();
        let mut target = target(transport, &destination, producer.guard());
        let message = outgoing(transport, &mut envelope, producer.guard());
        let attributes = std::mem::take(&mut target.attributes);
        let sending = producer.start_send(&parent, &target, attributes, message, producer.operations().request);
        let result = request(transport, envelope, timeout).await;
        let failed = result.as_ref().err();
        sending.finish(failed.and_then(error_code).into_iter().collect(), failed);
        result
    }

    fn producer(&self) -> Option<&Producer> {
        match &self.inner.telemetry {
            Telemetry::Globals(producer) => {
                let system = || self.inner.transport.system();
                Some(producer.get_or_init(|| Instrumentation::from_globals().producer(system())))
            }
            Telemetry::Given(producer) => Some(producer),
            Telemetry::Off => None,
        }
    }
}

async fn request(transport: &dyn Publish, envelope: Envelope, timeout: Duration) -> Result<Delivery, PublishError> {
    if envelope.destination().is_empty() {
        return Err(PublishError::no_destination());
    }
    let destination = envelope.destination().clone();
    let reply = transport.request(envelope, timeout).await?;
    match ErrorReply::read(&reply, transport.error_reply_headers()) {
        Some(error) => Err(PublishError::request_failed(destination.name(), error)),
        None => Ok(reply),
    }
}

/// The code of an error reply, where it is one of few.
fn error_code(error: &PublishError) -> Option<KeyValue> {
    let code = error.error_reply()?.code()?;
    Some(KeyValue::new(semconv::REPLY_ERROR_CODE, i64::from(code)))
}

fn encode(destination: impl Into<Destination>, body: impl Encode) -> Result<Envelope, PublishError> {
    let body = body.encode().map_err(|error| {
        PublishError::new(crate::broker::PublishErrorKind::Encode, "encode_error", error.to_string()).with_source(error)
    })?;
    Ok(body.into_envelope(destination))
}

impl Outlet for Publisher {
    fn deliver(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(self.hand_over(envelope))
    }

    fn transport(&self) -> &dyn Publish {
        self.inner.transport.as_ref()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("system", &self.inner.transport.system().name()).finish_non_exhaustive()
    }
}

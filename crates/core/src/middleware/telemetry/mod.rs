mod inner;
mod process;
mod publish;

use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use opentelemetry::Context;

pub(crate) use self::inner::InnerTelemetry;
pub(crate) use self::process::{Overrides, Settler, process_with};
pub(crate) use self::publish::{SendSpan, outgoing, target};
use super::{Middleware, Next, NextPublish};
use crate::broker::PublishError;
use crate::message::{Delivery, Envelope, Outcome, Receipt, Source};
use crate::telemetry::{Builder, Consumer, Instrumentation, ScopeState, run_in};

/// A middleware that makes the spans, metrics and events of every delivery and publish, and carries trace context and baggage through
/// the headers.
///
/// It is in place by default, outermost for deliveries and next to the broker for publishes, on the global providers.
/// [`App::telemetry`](crate::App::telemetry) replaces it, [`App::without_telemetry`](crate::App::without_telemetry) removes it; after
/// that it can be placed elsewhere as any other middleware.
///
/// # Examples
///
/// ```
/// use throughline_core::middleware::TelemetryMiddleware;
/// use throughline_core::telemetry::SettleSpans;
///
/// let telemetry: TelemetryMiddleware = TelemetryMiddleware::builder()
///     .settle_spans(SettleSpans::Always)
///     .capture_headers(["tenant"])
///     .build();
/// # let _ = telemetry;
/// ```
#[derive(Debug)]
pub struct TelemetryMiddleware {
    instrumentation: Instrumentation,
    consumers: RwLock<Vec<(Arc<Source>, Consumer)>>,
}

impl TelemetryMiddleware {
    /// Starts a builder with every default.
    ///
    /// # Examples
    ///
    /// ```
    /// let telemetry = throughline_core::middleware::TelemetryMiddleware::builder().build();
    /// # let _ = telemetry;
    /// ```
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(crate) const fn instrumentation(&self) -> &Instrumentation {
        &self.instrumentation
    }

    fn consumer(&self, source: &Arc<Source>, overrides: Option<Overrides>) -> Consumer {
        let known = self.consumers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, consumer)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, source)) {
            return consumer.clone();
        }
        drop(known);
        let consumer = self.instrumentation.consumer(Arc::clone(source));
        let consumer = match overrides {
            Some(overrides) => overrides.apply(consumer),
            None => consumer,
        };
        self.consumers.write().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(source), consumer.clone()));
        consumer
    }
}

impl From<Instrumentation> for TelemetryMiddleware {
    fn from(instrumentation: Instrumentation) -> Self {
        Self { instrumentation, consumers: RwLock::default() }
    }
}

impl From<&Instrumentation> for TelemetryMiddleware {
    fn from(instrumentation: &Instrumentation) -> Self {
        Self::from(instrumentation.clone())
    }
}

#[async_trait]
impl Middleware for TelemetryMiddleware {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        match delivery.source() {
            Some(source) => {
                let inner = next.inner_telemetry();
                let consumer = self.consumer(source, inner.overrides());
                let (outcome, settler) =
                    process_with(&consumer, delivery, ScopeState::Open, inner, |delivery| next.run(delivery)).await;
                inner.set_settler(settler);
                outcome
            }
            None => next.run(delivery).await,
        }
    }

    async fn publish(&self, mut envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        let transport = next.transport();
        let producer = self.instrumentation.producer(transport.system());
        let span = SendSpan::start(&producer, &Context::current(), transport, &mut envelope);
        let result = run_in(span.context().cloned(), pin!(next.run(envelope))).await;
        span.finish(&result);
        result
    }
}

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use opentelemetry::propagation::TextMapPropagator;

use super::consume::Consumer;
use super::engine::Engine;
use super::produce::Producer;
use crate::message::{Source, System};

/// The telemetry engine: the one implementation of spans, metrics, events and propagation behind the framework and the raw-client
/// functions.
///
/// It is a handle; cloning is cheap. Providers are arguments, the global ones a default, which may be set later.
///
/// # Examples
///
/// ```
/// use throughline_core::telemetry::Instrumentation;
///
/// let from_globals = Instrumentation::from_globals();
/// let chosen = Instrumentation::builder()
///     .tracer_provider(opentelemetry::trace::noop::NoopTracerProvider::new())
///     .build();
/// # let _ = (from_globals, chosen);
/// ```
#[derive(Clone)]
pub struct Instrumentation {
    pub(crate) engine: Arc<Engine>,
}

impl Instrumentation {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine: Arc::new(engine) }
    }

    /// Prepares the telemetry of one subscription: what is the same for all its messages is built once.
    #[must_use]
    pub fn consumer(&self, source: Arc<Source>) -> Consumer {
        Consumer::new(Arc::clone(&self.engine), source)
    }

    /// Prepares the telemetry of what is published on one connection.
    #[must_use]
    pub fn producer(&self, system: Arc<System>) -> Producer {
        Producer::new(Arc::clone(&self.engine), system)
    }

    /// The engine without its type, for a delivery that does not know it.
    pub(crate) fn to_any(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.engine) as Arc<dyn Any + Send + Sync>
    }

    /// Returns the propagator in use.
    #[must_use]
    pub fn propagator(&self) -> &(dyn TextMapPropagator + Send + Sync) {
        self.engine.propagator.as_dyn()
    }
}

impl fmt::Debug for Instrumentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instrumentation").field("propagator", &self.propagator()).finish_non_exhaustive()
    }
}

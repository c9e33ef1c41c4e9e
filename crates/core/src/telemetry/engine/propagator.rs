use std::any::Any;
use std::sync::Arc;

use opentelemetry::propagation::TextMapPropagator;

use crate::propagation::Propagators;

/// The propagators in use: our own can say that the headers hold nothing, which costs no context.
#[derive(Clone)]
pub(crate) enum Propagator {
    Own(Propagators),
    Other(Arc<dyn TextMapPropagator + Send + Sync>),
}

impl Propagator {
    pub(crate) fn new<P: TextMapPropagator + Send + Sync + 'static>(propagator: P) -> Self {
        match (&propagator as &dyn Any).downcast_ref::<Propagators>() {
            Some(own) => Self::Own(own.clone()),
            None => Self::Other(Arc::new(propagator)),
        }
    }

    pub(crate) fn as_dyn(&self) -> &(dyn TextMapPropagator + Send + Sync) {
        match self {
            Self::Own(propagators) => propagators,
            Self::Other(propagator) => propagator.as_ref(),
        }
    }
}

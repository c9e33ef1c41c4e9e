//! The same through this project, by both doors.

mod framework;
mod raw;

use std::sync::Arc;

use opentelemetry::KeyValue;
use throughline_core::message::{Operations, System};
use throughline_core::telemetry::Instrumentation;

pub use self::framework::Framework;
pub use self::raw::Raw;
use crate::load::State;
use crate::pipeline::Pipeline;

/// Describes the connection, so that a span has the eight attributes of the baseline.
pub(crate) fn system() -> System {
    System::new("in_memory", Operations::DEFAULT)
        .with_server("localhost", 4222)
        .with_client_id("bench")
        .with_attribute(KeyValue::new("network.transport", "pipe"))
}

/// The engine of a state; none where telemetry is removed.
///
/// Without an SDK it takes the global providers, that is those of a program which has not set any.
pub(crate) fn engine(state: State, pipeline: &Pipeline) -> Option<Instrumentation> {
    let mut builder = Instrumentation::builder();
    if let Some(provider) = &pipeline.tracer {
        builder = builder.tracer_provider(provider.clone());
    }
    if let Some(provider) = &pipeline.meter {
        builder = builder.meter_provider(provider);
    }
    (state != State::Untraced).then(|| builder.build())
}

fn shared_system() -> Arc<System> {
    Arc::new(system())
}

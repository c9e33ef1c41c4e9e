use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use throughline_core::Delivery;
use throughline_core::broker::{RetryPlace, RetryRoute};
use throughline_core::message::{Native, OperationType};
use throughline_core::telemetry::semconv::RETRY_DESTINATION;

/// How long a message waits at the place it is published to. The time goes with the message itself, so that it holds on a clock that a
/// test has paused, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits(pub(crate) Duration);

/// In a message that has waited: telemetry shows it under the name it had first, and says where it waited.
pub(crate) struct Waited {
    pub(crate) origin: Arc<str>,
    pub(crate) place: Arc<str>,
}

impl Native for Waited {
    fn destination(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.origin))
    }

    fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new(RETRY_DESTINATION, Arc::clone(&self.place)));
    }
}

/// The places of another broker, with the time each message waits there.
pub(crate) struct ImitatedRoute(pub(crate) Arc<dyn RetryRoute>);

impl RetryRoute for ImitatedRoute {
    fn place(&self, message: &Delivery, after: Option<Duration>) -> Option<RetryPlace> {
        let mut place = self.0.place(message, after)?;
        place.destination = place.destination.with_native(Waits(place.wait));
        Some(place)
    }

    fn place_at<'a>(&self, destination: &'a str) -> Option<(&'a str, Duration)> {
        self.0.place_at(destination)
    }
}

use std::borrow::Cow;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::BrokerError;

/// What hears what an adapter does by itself, so that it is in the telemetry of the app. The framework implements it.
///
/// An adapter gets one for each subscription with [`Subscriber::prepare`](super::Subscriber::prepare).
pub trait Observe: Send + Sync + 'static {
    /// Returns what makes the adapter's own metrics; `None` where nobody measures.
    fn meter(&self) -> Option<Meter>;

    /// Records a settlement of many messages that the adapter made by itself and that began at `started`: one span where settle spans
    /// are on or it failed, and the duration.
    ///
    /// `destination` is that of all the messages, `None` where they have several; `attributes` say up to where.
    fn settled(
        &self,
        started: Instant,
        destination: Option<&str>,
        attributes: Vec<KeyValue>,
        error: Option<&BrokerError>,
    );

    /// Notes that the subscription takes messages while something is wrong, and what: messages are dropped, the server does not answer.
    /// `None` says that it is over. It is what [`Health`](crate::serve::Health) shows; the default does nothing.
    fn degraded(&self, why: Option<Cow<'static, str>>) {
        let _ = why;
    }

    /// Notes which parts of its destination the broker has given the subscription, where it divides them among the members of a group:
    /// `["orders 0", "orders 1"]`. Called whenever they change; the default does nothing.
    fn assigned(&self, parts: Vec<String>) {
        let _ = parts;
    }

    /// Notes that the broker was asked for messages just now, and within which time that happens again at the latest. Where it takes more
    /// than twice that time, something hangs and [`Health::is_live`](crate::serve::Health::is_live) says so. It is for an adapter that
    /// polls; cheap, and may be called all the time. The default does nothing.
    fn polled(&self, again_within: Duration) {
        let _ = again_within;
    }
}

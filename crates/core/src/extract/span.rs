use super::{FromDelivery, Rejection};
use crate::message::Delivery;
use crate::telemetry::ProcessSpan;

/// The span of the message or batch; one that records nothing when telemetry is removed.
impl<S: Sync> FromDelivery<S> for ProcessSpan {
    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.open_scope()))
    }
}

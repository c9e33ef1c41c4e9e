use super::{FromDelivery, Rejection};
use crate::message::Delivery;
use crate::telemetry::Baggage;

/// The baggage of the message, or of all messages of a batch merged.
// BAGG-11, -12.
impl<S: Sync> FromDelivery<S> for Baggage {
    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.open_scope()))
    }
}

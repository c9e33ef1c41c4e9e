use super::{FromDelivery, Rejection, Shape};
use crate::codec::Decode;
use crate::message::Delivery;

/// A body of a single message: JSON, text or bytes. One that cannot be decoded is rejected and never retried.
// STAT-11.
impl<S: Sync, T: Decode> FromDelivery<S> for T {
    const SHAPE: Shape = Shape::Single;
    const USES_SCOPE: bool = false;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        T::decode(delivery).map_err(Rejection::malformed)
    }
}

use super::{FromDelivery, Rejection};
use crate::message::{Delivery, Headers};

/// The whole delivery; of a batch, with all its messages.
impl<S: Sync> FromDelivery<S> for Delivery {
    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(delivery.clone())
    }
}

/// The headers of a message; empty for a batch.
impl<S: Sync> FromDelivery<S> for Headers {
    const USES_SCOPE: bool = false;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(delivery.headers().clone())
    }
}

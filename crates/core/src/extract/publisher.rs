use super::{FromDelivery, Rejection};
use crate::message::{Delivery, Failure};
use crate::publish::Publisher;

/// A publisher on the broker the message came from. What it publishes belongs to the message's trace, also from a spawned task.
impl<S: Sync> FromDelivery<S> for Publisher {
    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        match delivery.service::<Self>() {
            Some(publisher) => Ok(publisher.within(delivery.open_scope())),
            None => Err(Rejection::new(Failure::new("no_publisher", "this delivery was not received by `serve`"))),
        }
    }
}

use throughline_core::Delivery;
use throughline_core::extract::{FromDelivery, Rejection, Shape};

use crate::delivery::NativeMessage;

/// The number that the server gave a message, as an argument of a handler.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Number(pub u64);

impl<S: Sync> FromDelivery<S> for Number {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        let native = delivery.native::<NativeMessage>();
        let number = native.map(|native| Self(native.message().number));
        number.ok_or_else(|| Rejection::not_from("pigeon post", delivery, "Number", "subscribe with `Subject`"))
    }
}

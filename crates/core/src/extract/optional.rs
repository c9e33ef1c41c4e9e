use super::{FromDelivery, Rejection, Shape};
use crate::message::Delivery;

/// `None` where the argument cannot be made, such as a body that does not decode or a part that the message does not have.
impl<S: Sync, T: FromDelivery<S> + Send> FromDelivery<S> for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    const USES_SCOPE: bool = T::USES_SCOPE;

    async fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, Rejection> {
        Ok(T::from_delivery(delivery, state).await.ok())
    }
}

/// The rejection as a value: the handler decides what becomes of a message whose argument cannot be made.
impl<S: Sync, T: FromDelivery<S> + Send> FromDelivery<S> for Result<T, Rejection> {
    const SHAPE: Shape = T::SHAPE;
    const USES_SCOPE: bool = T::USES_SCOPE;

    async fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, Rejection> {
        Ok(T::from_delivery(delivery, state).await)
    }
}

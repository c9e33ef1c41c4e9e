use throughline_core::Delivery;
use throughline_core::extract::{FromDelivery, Rejection, Shape};

use crate::{NativeMessage, StreamPosition};

/// The subject a message was published to, which a subscription with wildcards does not know.
///
/// # Examples
///
/// ```
/// use throughline_core::{App, IntoRoute};
/// use throughline_nats::{Subject, SubjectName};
///
/// async fn reserve(SubjectName(subject): SubjectName, order: String) {
///     println!("{subject}: {order}"); // orders.42: {}
/// }
///
/// let app: App = App::new().subscribe(Subject::new("orders.{id}"), reserve);
/// # let _ = app;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectName(pub String);

impl<S: Sync> FromDelivery<S> for SubjectName {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.destination().to_owned()))
    }
}

/// The sequence of a message in its stream, counted from 1. It grows with every message of the stream and never
/// changes, also when the message is delivered again.
///
/// # Examples
///
/// ```
/// use throughline_core::{App, IntoRoute};
/// use throughline_nats::{Stream, StreamSequence};
///
/// async fn reserve(StreamSequence(sequence): StreamSequence, order: String) {
///     println!("order {sequence}: {order}");
/// }
///
/// let app: App = App::new().subscribe(Stream::new("ORDERS").durable("stock"), reserve);
/// # let _ = app;
/// ```
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct StreamSequence(pub u64);

impl<S: Sync> FromDelivery<S> for StreamSequence {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(position(delivery, "StreamSequence")?.stream_sequence))
    }
}

/// The place of a message in its stream: stream, consumer, sequences, number of deliveries, time.
///
/// # Examples
///
/// ```
/// use throughline_core::{App, IntoRoute};
/// use throughline_nats::{Stream, StreamPosition};
///
/// async fn reserve(position: StreamPosition, order: String) {
///     println!("{} of {}, delivery {}: {order}", position.stream_sequence, position.stream, position.delivered);
/// }
///
/// let app: App = App::new().subscribe(Stream::new("ORDERS").durable("stock"), reserve);
/// # let _ = app;
/// ```
impl<S: Sync> FromDelivery<S> for StreamPosition {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        position(delivery, "StreamPosition").cloned()
    }
}

fn position<'a>(delivery: &'a Delivery, wanted: &str) -> Result<&'a StreamPosition, Rejection> {
    let advice = "subscribe with `Stream`, or in a test give the message a `NativeMessage::at(..)`";
    let position = delivery.native::<NativeMessage>().and_then(NativeMessage::position);
    position.ok_or_else(|| Rejection::not_from("a stream", delivery, wanted, advice))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn extract<T: FromDelivery<()>>(delivery: &Delivery) -> Result<T, Rejection> {
        T::from_delivery(delivery, &()).await
    }

    #[tokio::test]
    async fn the_subject_is_that_of_the_message() {
        let SubjectName(subject) = extract(&Delivery::new("orders.42", "x")).await.unwrap();
        assert_eq!(subject, "orders.42");
    }

    #[tokio::test]
    async fn the_place_in_the_stream_is_that_of_the_delivery() {
        let position = StreamPosition::new("ORDERS", "stock", 42);
        let delivery = Delivery::new("orders", "x").with_native(Arc::new(NativeMessage::at(position.clone())));
        assert_eq!(extract::<StreamSequence>(&delivery).await.unwrap(), StreamSequence(42));
        assert_eq!(extract::<StreamPosition>(&delivery).await.unwrap(), position);
    }

    #[tokio::test]
    async fn a_message_of_core_nats_is_rejected_for_good_and_the_text_says_why() {
        let rejection = extract::<StreamSequence>(&Delivery::new("orders", "x")).await.unwrap_err();
        assert!(!rejection.failure().is_retryable());
        let text = rejection.to_string();
        assert!(
            text.contains("`orders`") && text.contains("StreamSequence") && text.contains("subscribe with `Stream`")
        );
    }
}

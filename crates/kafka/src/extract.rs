use std::time::SystemTime;

use bytes::Bytes;
use throughline_core::Delivery;
use throughline_core::extract::{FromDelivery, Rejection, Shape};

use crate::NativeRecord;

/// The topic a message came from, which a subscription to several or to a pattern does not know.
///
/// # Examples
///
/// ```
/// use throughline_kafka::TopicName;
///
/// async fn reserve(TopicName(topic): TopicName, order: String) {
///     println!("{topic}: {order}"); // orders.eu: {}
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicName(pub String);

impl<S: Sync> FromDelivery<S> for TopicName {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.destination().to_owned()))
    }
}

/// The partition of a message, counted from 0.
///
/// # Examples
///
/// ```
/// use throughline_kafka::{Offset, Partition};
///
/// async fn reserve(Partition(partition): Partition, Offset(offset): Offset, order: String) {
///     println!("{partition}/{offset}: {order}");
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Partition(pub i32);

impl<S: Sync> FromDelivery<S> for Partition {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(record(delivery, "Partition")?.partition()))
    }
}

/// The offset of a message in its partition, counted from 0. With topic and partition it names the message for good; it
/// is the same when the message is delivered again.
///
/// # Examples
///
/// ```
/// use throughline_kafka::Offset;
///
/// async fn reserve(Offset(offset): Offset, order: String) {
///     println!("order {offset}: {order}");
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Offset(pub i64);

impl<S: Sync> FromDelivery<S> for Offset {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(record(delivery, "Offset")?.offset()))
    }
}

/// The key of a message; `None` where it has none.
///
/// # Examples
///
/// ```
/// use throughline_kafka::Key;
///
/// async fn reserve(Key(key): Key, order: String) {
///     println!("{:?}: {order}", key);
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Key(pub Option<Bytes>);

impl<S: Sync> FromDelivery<S> for Key {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.key().cloned()))
    }
}

/// The time of a message: when it was made or, where the topic is set up so, when the broker appended it. `None` where it
/// has none.
///
/// # Examples
///
/// ```
/// use throughline_kafka::Timestamp;
///
/// async fn reserve(Timestamp(made): Timestamp, order: String) {
///     println!("{made:?}: {order}");
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub Option<SystemTime>);

impl<S: Sync> FromDelivery<S> for Timestamp {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.sent_at()))
    }
}

fn record<'a>(delivery: &'a Delivery, wanted: &str) -> Result<&'a NativeRecord, Rejection> {
    let advice = "in a test give the message a `NativeRecord::at(..)`";
    delivery.native().ok_or_else(|| Rejection::not_from("Kafka", delivery, wanted, advice))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    async fn extract<T: FromDelivery<()>>(delivery: &Delivery) -> Result<T, Rejection> {
        T::from_delivery(delivery, &()).await
    }

    #[tokio::test]
    async fn the_place_is_that_of_the_record() {
        let delivery = Delivery::new("orders", "x").with_native(Arc::new(NativeRecord::at("orders", 3, 42)));
        assert_eq!(extract::<TopicName>(&delivery).await.unwrap(), TopicName("orders".to_owned()));
        assert_eq!(extract::<Partition>(&delivery).await.unwrap(), Partition(3));
        assert_eq!(extract::<Offset>(&delivery).await.unwrap(), Offset(42));
    }

    #[tokio::test]
    async fn key_and_time_are_those_of_the_message() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let delivery = Delivery::new("orders", "x").with_key("k1").with_sent_at(time);
        assert_eq!(extract::<Key>(&delivery).await.unwrap(), Key(Some(Bytes::from_static(b"k1"))));
        assert_eq!(extract::<Timestamp>(&delivery).await.unwrap(), Timestamp(Some(time)));
        let bare = Delivery::new("orders", "x");
        assert_eq!(extract::<Key>(&bare).await.unwrap(), Key(None));
        assert_eq!(extract::<Timestamp>(&bare).await.unwrap(), Timestamp(None));
    }

    #[tokio::test]
    async fn a_message_of_another_broker_is_rejected_for_good_and_the_text_says_why() {
        let rejection = extract::<Offset>(&Delivery::new("orders", "x")).await.unwrap_err();
        assert!(!rejection.failure().is_retryable());
        let text = rejection.to_string();
        assert!(text.contains("`orders`") && text.contains("`Offset`") && text.contains("NativeRecord::at"), "{text}");
    }
}

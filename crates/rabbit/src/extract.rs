use throughline_core::Delivery;
use throughline_core::extract::{FromDelivery, Rejection, Shape};

use crate::{Death, NativeMessage, Properties};

/// The routing key a message was published with, which a subscription whose bindings have wildcards does not know.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::RoutingKey;
///
/// async fn reserve(RoutingKey(key): RoutingKey, order: String) {
///     println!("{key}: {order}"); // placed.eu: {}
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RoutingKey(pub String);

impl<S: Sync> FromDelivery<S> for RoutingKey {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.destination().to_owned()))
    }
}

/// The exchange a message was published to; empty for the default exchange.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::ExchangeName;
///
/// async fn reserve(ExchangeName(exchange): ExchangeName, order: String) {
///     println!("{exchange}: {order}"); // shop: {}
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ExchangeName(pub String);

impl<S: Sync> FromDelivery<S> for ExchangeName {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(message(delivery, "ExchangeName")?.exchange().to_owned()))
    }
}

/// The number under which a message is settled. It counts from 1 on each channel, so it names a message only until the connection is lost.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::DeliveryTag;
///
/// async fn reserve(DeliveryTag(tag): DeliveryTag, order: String) {
///     println!("{tag}: {order}");
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeliveryTag(pub u64);

impl<S: Sync> FromDelivery<S> for DeliveryTag {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(message(delivery, "DeliveryTag")?.delivery_tag()))
    }
}

/// Whether the server has delivered a message before. It may have been handled then.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::Redelivered;
///
/// async fn reserve(Redelivered(again): Redelivered, order: String) {
///     if again {
///         println!("maybe known: {order}");
///     }
/// }
/// # let _ = reserve;
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Redelivered(pub bool);

impl<S: Sync> FromDelivery<S> for Redelivered {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(message(delivery, "Redelivered")?.redelivered()))
    }
}

impl<S: Sync> FromDelivery<S> for Properties {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self::of(message(delivery, "Properties")?.properties().clone()))
    }
}

impl<S: Sync> FromDelivery<S> for Death {
    const SHAPE: Shape = Shape::Single;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self::read(message(delivery, "Death")?.table()))
    }
}

fn message<'a>(delivery: &'a Delivery, wanted: &str) -> Result<&'a NativeMessage, Rejection> {
    let advice = "in a test give the message a `NativeMessage::at(..)`";
    delivery.native().ok_or_else(|| Rejection::not_from("RabbitMQ", delivery, wanted, advice))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapin::types::AMQPValue;

    use super::*;
    use crate::testing::with_headers;

    async fn extract<T: FromDelivery<()>>(delivery: &Delivery) -> Result<T, Rejection> {
        T::from_delivery(delivery, &()).await
    }

    #[tokio::test]
    async fn the_place_and_the_properties_are_those_of_the_message() {
        let properties = with_headers(&[("count", AMQPValue::LongInt(3))]).with_priority(5);
        let native = NativeMessage::at("shop", "placed.eu", "orders").with_properties(properties.clone());
        let delivery = Delivery::new("placed.eu", "x").with_native(Arc::new(native));
        assert_eq!(extract::<RoutingKey>(&delivery).await.unwrap(), RoutingKey("placed.eu".to_owned()));
        assert_eq!(extract::<ExchangeName>(&delivery).await.unwrap(), ExchangeName("shop".to_owned()));
        assert_eq!(extract::<DeliveryTag>(&delivery).await.unwrap(), DeliveryTag(1));
        assert_eq!(extract::<Redelivered>(&delivery).await.unwrap(), Redelivered(false));
        assert_eq!(extract::<Properties>(&delivery).await.unwrap().native(), &properties);
        assert_eq!(extract::<Death>(&delivery).await.unwrap(), Death::default());
    }

    #[tokio::test]
    async fn a_message_of_another_broker_is_rejected_for_good_and_the_text_says_why() {
        let rejection = extract::<Death>(&Delivery::new("orders", "x")).await.unwrap_err();
        assert!(!rejection.failure().is_retryable());
        let text = rejection.to_string();
        assert!(text.contains("`orders`") && text.contains("`Death`") && text.contains("NativeMessage::at"), "{text}");
        assert!(extract::<RoutingKey>(&Delivery::new("orders", "x")).await.is_ok(), "each message has one");
    }
}

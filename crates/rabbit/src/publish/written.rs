//! What an envelope is written as: the properties of a message.

use lapin::BasicProperties;
use lapin::types::ShortString;
use throughline_core::broker::PublishErrorKind;
use throughline_core::{Destination, Envelope, PublishError};

use crate::carrier::to_table;
use crate::delivery::NativeMessage;
use crate::error::OTHER;
use crate::names::short;
use crate::properties::{CONTENT_TYPE, PERSISTENT, Properties};

/// Writes what an envelope says into the properties of a message: ids, content type, reply address, headers, and what its native part sets.
// ATTR-R-07.
pub(crate) fn to_native(envelope: &Envelope) -> Result<BasicProperties, PublishError> {
    let own = envelope.native::<Properties>();
    let mut sent = match own {
        Some(own) => own.to_sent()?,
        None => BasicProperties::default().with_delivery_mode(PERSISTENT),
    };
    let content_type = ContentType::of(envelope)?;
    let left_out = content_type.is_in_place_of_header.then_some(CONTENT_TYPE);
    let origin = envelope.origin::<NativeMessage>().and_then(NativeMessage::table);
    let mut headers = to_table(envelope, origin, left_out)?;
    if let Some(own) = own {
        own.add_headers(&mut headers, envelope)?;
    }
    if !headers.inner().is_empty() {
        sent = sent.with_headers(headers);
    }
    if let Some(content_type) = content_type.text {
        sent = sent.with_content_type(content_type);
    }
    if let Some(id) = envelope.id() {
        sent = sent.with_message_id(short("message id", id)?);
    }
    if let Some(id) = envelope.correlation_id() {
        sent = sent.with_correlation_id(short("correlation id", id)?);
    }
    if let Some(destination) = envelope.reply_to() {
        sent = sent.with_reply_to(reply_address(destination)?);
    }
    Ok(sent)
}

/// The content type of a message on its way out.
struct ContentType {
    text: Option<ShortString>,
    /// Whether a header of the envelope has become the property, or is replaced by it.
    is_in_place_of_header: bool,
}

impl ContentType {
    /// A header with the content type of a message that came from elsewhere becomes the property. Where a message of this broker has
    /// both, as those of some frameworks, a forward leaves both as they are.
    fn of(envelope: &Envelope) -> Result<Self, PublishError> {
        if let Some(content_type) = envelope.content_type() {
            return Ok(Self { text: Some(short("content type", content_type)?), is_in_place_of_header: true });
        }
        let origin = envelope.origin::<NativeMessage>();
        if let Some(origin) = origin.filter(|origin| origin.has_header(CONTENT_TYPE)) {
            return Ok(Self { text: origin.properties().content_type().clone(), is_in_place_of_header: false });
        }
        // One that is too long for the property stays a header: what was received can be forwarded.
        let header = envelope.headers().get_last(CONTENT_TYPE).and_then(|text| ShortString::try_new(text).ok());
        Ok(Self { is_in_place_of_header: header.is_some(), text: header })
    }
}

/// Returns the address for an answer, for which the protocol has one name: that of a queue.
fn reply_address(destination: &Destination) -> Result<ShortString, PublishError> {
    if let Some(exchange) = destination.namespace().filter(|exchange| !exchange.is_empty()) {
        let message =
            format!("an answer goes to a queue, not to the exchange `{exchange}`: name a queue as the reply address");
        return Err(PublishError::new(PublishErrorKind::Unsupported, OTHER, message));
    }
    Ok(short("reply address", destination.name())?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use lapin::types::AMQPValue;
    use proptest::prelude::*;
    use throughline_core::Delivery;

    use super::*;
    use crate::testing::{any_properties, any_value, table, text, with_headers};

    fn sent(properties: Properties) -> Result<BasicProperties, PublishError> {
        to_native(&Envelope::new("orders", "x").with_native(properties))
    }

    fn received(properties: BasicProperties) -> Delivery {
        let native = NativeMessage::at("shop", "placed", "orders").with_properties(properties);
        Delivery::new("placed", "x").with_native(Arc::new(native))
    }

    fn forwarded(properties: BasicProperties) -> BasicProperties {
        to_native(&Envelope::forward(&received(properties), "dead")).unwrap()
    }

    fn encode_error(failed: Result<BasicProperties, PublishError>) -> String {
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::Encode, "{error}");
        error.to_string()
    }

    #[test]
    fn a_message_is_persistent_and_has_what_the_envelope_says() {
        let envelope = Envelope::new("orders", "x")
            .with_header("tenant", "acme")
            .with_id("m1")
            .with_correlation_id("c1")
            .with_content_type("application/json")
            .with_reply_to("answers");
        let expected = with_headers(&[("tenant", text("acme"))])
            .with_delivery_mode(2)
            .with_message_id("m1".into())
            .with_correlation_id("c1".into())
            .with_content_type("application/json".into())
            .with_reply_to("answers".into());
        assert_eq!(to_native(&envelope).unwrap(), expected, "ATTR-R-07");
        let bare = to_native(&Envelope::new("orders", "x")).unwrap();
        assert_eq!(bare, BasicProperties::default().with_delivery_mode(2));
    }

    #[test]
    fn every_property_that_is_set_is_sent_and_read() {
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let properties = Properties::new()
            .with_priority(5)
            .with_expiration(Duration::from_micros(1_500))
            .with_kind("order.placed")
            .with_app_id("shop")
            .with_user_id("guest")
            .with_timestamp(time)
            .with_content_encoding("gzip")
            .with_header("count", AMQPValue::LongInt(3))
            .transient();
        let sent = sent(properties).unwrap();
        let expected = with_headers(&[("count", AMQPValue::LongInt(3))])
            .with_priority(5)
            .with_expiration("2".into())
            .with_type("order.placed".into())
            .with_app_id("shop".into())
            .with_user_id("guest".into())
            .with_timestamp(1_700_000_000)
            .with_content_encoding("gzip".into())
            .with_delivery_mode(1);
        assert_eq!(sent, expected);
        let read = Properties::of(sent);
        assert_eq!((read.priority(), read.expiration()), (Some(5), Some(Duration::from_millis(2))));
        assert_eq!((read.kind(), read.app_id(), read.user_id()), (Some("order.placed"), Some("shop"), Some("guest")));
        assert_eq!((read.timestamp(), read.content_encoding()), (Some(time), Some("gzip")));
        assert!(read.is_transient() && !Properties::new().is_transient());
        assert_eq!(read.header("count"), Some(&AMQPValue::LongInt(3)));
    }

    #[test]
    fn what_the_protocol_cannot_carry_fails_before_it_is_sent() {
        let long = "ü".repeat(128);
        for (what, properties) in [
            ("type", Properties::new().with_kind(&long)),
            ("app id", Properties::new().with_app_id(&long)),
            ("user id", Properties::new().with_user_id(&long)),
            ("content encoding", Properties::new().with_content_encoding(&long)),
            ("name of a header", Properties::new().with_header(&long, AMQPValue::Void)),
        ] {
            let text = encode_error(sent(properties));
            assert!(text.contains(&format!("the {what} has 256 bytes")), "{text}");
        }
        let envelope = || Envelope::new("orders", "x");
        for (what, envelope) in [
            ("message id", envelope().with_id(&*long)),
            ("correlation id", envelope().with_correlation_id(&*long)),
            ("content type", envelope().with_content_type(long.clone())),
            ("reply address", envelope().with_reply_to(&*long)),
        ] {
            let text = encode_error(to_native(&envelope));
            assert!(text.contains(&format!("the {what} has 256 bytes")), "{text}");
        }
    }

    #[test]
    fn an_expiration_is_a_number_that_the_server_takes() {
        let longest = Duration::from_millis(u64::from(u32::MAX));
        assert!(sent(Properties::new().with_expiration(longest)).is_ok());
        for wrong in [longest + Duration::from_millis(1), Duration::MAX] {
            assert!(encode_error(sent(Properties::new().with_expiration(wrong))).contains("49 days"));
        }
        for odd in ["", "soon", "-1", "+1", "1.5", "99999999999999999999"] {
            let arrived = Properties::of(BasicProperties::default().with_expiration(odd.into()));
            assert_eq!(arrived.expiration(), None, "{odd}");
            assert!(sent(arrived).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        let nested =
            AMQPValue::FieldArray(vec![AMQPValue::FieldTable(table(&[("x", AMQPValue::Float(f32::NAN))]))].into());
        for value in [AMQPValue::Double(f64::INFINITY), AMQPValue::Float(f32::NEG_INFINITY), nested] {
            let text = encode_error(sent(Properties::new().with_header("ratio", value)));
            assert!(text.contains("`ratio`") && text.contains("not finite"), "{text}");
        }
    }

    #[test]
    fn a_short_string_is_sent_as_a_long_one() {
        let short = || AMQPValue::ShortString("x".into());
        let nested = AMQPValue::FieldTable(table(&[("in", AMQPValue::FieldArray(vec![short()].into()))]));
        let sent = sent(Properties::new().with_header("a", short()).with_header("b", nested)).unwrap();
        let nested = AMQPValue::FieldTable(table(&[("in", AMQPValue::FieldArray(vec![text("x")].into()))]));
        assert_eq!(sent.headers(), &Some(table(&[("a", text("x")), ("b", nested)])), "PROP-R-02");
    }

    #[test]
    fn further_keys_are_an_array_of_strings() {
        let keys = AMQPValue::FieldArray(vec![text("audit")].into());
        assert!(sent(Properties::new().with_header("CC", keys.clone())).unwrap().headers().is_some());
        for wrong in [text("audit"), AMQPValue::FieldArray(vec![AMQPValue::Void].into())] {
            assert!(encode_error(sent(Properties::new().with_header("BCC", wrong))).contains("`BCC`"));
        }
        let forward = forwarded(with_headers(&[("CC", keys)]));
        assert_eq!(forward.headers(), &None, "a stranger chooses no place");
    }

    #[test]
    fn headers_of_the_servers_and_of_telemetry_are_not_set_so() {
        let mut properties = Properties::new();
        for name in ["x-death", "x-delivery-count", "traceparent", "Baggage", "reply-error"] {
            properties = properties.with_header(name, text("x"));
        }
        assert_eq!(sent(properties).unwrap().headers(), &None, "PROP-05");
    }

    #[test]
    fn a_header_of_the_properties_is_in_place_of_the_envelopes() {
        let properties = Properties::new().with_header("count", AMQPValue::LongInt(3));
        let envelope = Envelope::new("orders", "x").with_header("count", "2").with_native(properties);
        let sent = to_native(&envelope).unwrap();
        assert_eq!(sent.headers(), &Some(table(&[("count", AMQPValue::LongInt(3))])));
    }

    #[test]
    fn a_forward_keeps_all_but_expiration_user_and_reply_address() {
        let kept = || {
            with_headers(&[("count", AMQPValue::LongInt(3)), ("at", AMQPValue::Timestamp(u64::MAX))])
                .with_priority(5)
                .with_type("order.placed".into())
                .with_app_id("shop".into())
                .with_cluster_id("c".into())
                .with_timestamp(u64::MAX)
                .with_content_encoding("gzip".into())
                .with_content_type("application/json".into())
        };
        let arrived = kept()
            .with_expiration("60000".into())
            .with_user_id("stranger".into())
            .with_reply_to("q".into())
            .with_delivery_mode(1);
        assert_eq!(forwarded(arrived), kept().with_delivery_mode(2));
    }

    #[test]
    fn the_content_type_of_another_broker_becomes_the_property() {
        let from_elsewhere = Envelope::new("orders", "x").with_header("Content-Type", "text/plain");
        let sent = to_native(&from_elsewhere).unwrap();
        assert_eq!(sent, BasicProperties::default().with_delivery_mode(2).with_content_type("text/plain".into()));
        let changed = Envelope::forward(&received(BasicProperties::default().with_content_type("a/b".into())), "dead");
        let changed = to_native(&changed.with_header("content-type", "c/d")).unwrap();
        assert_eq!(changed.content_type().as_ref().map(ShortString::as_str), Some("c/d"));
        let long = to_native(&Envelope::new("orders", "x").with_header("content-type", "x".repeat(256))).unwrap();
        assert!(long.content_type().is_none() && long.headers().is_some(), "it stays a header");
    }

    #[test]
    fn property_and_header_with_a_content_type_stay_apart() {
        let both = with_headers(&[("Content-Type", text("vnd/x"))]).with_content_type("application/json".into());
        assert_eq!(forwarded(both.clone()), both.with_delivery_mode(2));
    }

    #[test]
    fn an_answer_goes_to_a_queue() {
        let to = |destination: Destination| to_native(&Envelope::new("orders", "x").with_reply_to(destination));
        let error = to(Destination::new("placed").within("shop")).unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::Unsupported);
        assert!(error.to_string().contains("`shop`"));
        let sent = to(Destination::new("answers").within("")).unwrap();
        assert_eq!(sent.reply_to().as_ref().map(ShortString::as_str), Some("answers"));
    }

    proptest! {
        #[test]
        fn whatever_arrived_can_be_forwarded(properties in any_properties()) {
            prop_assert!(to_native(&Envelope::forward(&received(properties), "dead")).is_ok());
        }

        #[test]
        fn no_properties_panic(properties in any_properties(), name in ".{0,300}", value in any_value()) {
            let read = Properties::of(properties).with_header(&name, value);
            let _ = (read.expiration(), read.timestamp(), read.is_transient());
            let _ = sent(read);
        }
    }
}

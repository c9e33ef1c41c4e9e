//! An envelope as the client takes it.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use throughline_core::broker::HeaderNames;
use throughline_core::propagation::Carrier;
use throughline_core::{Destination, Envelope, PublishError};

use crate::carrier::{HeaderInjector, to_native};
use crate::delivery::NativeRecord;
use crate::destination::Purpose;
use crate::error;
use crate::names::is_topic;
use crate::producer::{Record, Report};
use crate::properties::RecordProperties;
use crate::subscription::RETRY_WAIT;

pub(crate) fn report_of(envelope: &Envelope) -> Arc<Report> {
    Report::new(RecordProperties::of(envelope).partition.is_some())
}

/// Makes the client's form of a message, which lends all but the headers.
pub(crate) fn record<'a>(
    envelope: &'a Envelope,
    report: &Arc<Report>,
    names: &HeaderNames,
) -> Result<Record<'a>, PublishError> {
    let topic = envelope.destination().name();
    if !is_topic(topic) {
        return Err(error::invalid_topic(topic));
    }
    let properties = RecordProperties::of(envelope);
    if properties.partition.is_some_and(|partition| partition < 0) {
        // To the client, -1 says that there is no partition.
        return Err(error::publish(&KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), topic));
    }
    let record = Record {
        topic,
        partition: properties.partition,
        payload: envelope.has_payload().then(|| envelope.payload().as_ref()),
        key: envelope.key().map(AsRef::as_ref),
        timestamp: properties.timestamp,
        headers: headers(envelope, names),
        delivery_opaque: Arc::clone(report),
    };
    Ok(record)
}

/// Writes the headers and, in place of headers of those names, what Kafka has no other place for.
// ATTR-K-09.
fn headers(envelope: &Envelope, names: &HeaderNames) -> Option<OwnedHeaders> {
    // What was null in the record that is passed on stays so.
    let passed_on = envelope.origin::<NativeRecord>();
    let is_null = |name: &str, place| passed_on.is_some_and(|record| record.headers.is_null(name, place));
    let mut native = to_native(envelope.headers(), is_null);
    let own = [
        (names.message_id, envelope.id()),
        (names.correlation_id, envelope.correlation_id()),
        (names.content_type, envelope.content_type()),
        (names.reply_to, envelope.reply_to().map(Destination::name)),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            let mut headers = HeaderInjector::new(native.get_or_insert_default());
            headers.remove(name);
            headers.put(name, value.as_bytes());
        }
    }
    if let Some(wait) = Purpose::of(envelope.destination()).retry {
        let mut headers = HeaderInjector::new(native.get_or_insert_default());
        // That of an earlier time is over.
        headers.remove(RETRY_WAIT);
        if wait > Duration::ZERO {
            headers.put(RETRY_WAIT, wait.as_millis().to_string().as_bytes());
        }
    }
    native
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rdkafka::message::Headers as _;

    use throughline_core::Delivery;

    use super::*;
    use crate::copied_headers::CopiedHeaders;
    use crate::raw_headers::RawHeader;

    fn written(envelope: &Envelope) -> Vec<(String, Vec<u8>)> {
        let native = headers(envelope, &HeaderNames::default());
        let all = native.iter().flat_map(|native| native.iter());
        all.map(|one| (one.key.to_owned(), one.value.unwrap_or_default().to_vec())).collect()
    }

    #[test]
    fn a_null_header_stays_null_when_its_message_is_passed_on() {
        let mut record = NativeRecord::at("orders", 0, 7);
        let mut copied = Vec::new();
        for (name, value) in [
            (c"null", None),
            (c"empty", Some(&b""[..])),
            (c"both", Some(b"")),
            (c"both", Some(b"x")),
            (c"both", None),
            (c"tenant", Some(b"acme")),
        ] {
            CopiedHeaders::write(&mut copied, &RawHeader { name, value });
        }
        record.headers = CopiedHeaders::new(copied.into());
        let delivery = Delivery::new("orders", "x").with_native(Arc::new(record));
        let native = headers(&Envelope::forward(&delivery, "dead"), &HeaderNames::default()).unwrap();
        let values: Vec<_> = native.iter().map(|one| (one.key, one.value)).collect();
        assert_eq!(
            values,
            [
                ("null", None),
                ("empty", Some(&b""[..])),
                ("both", Some(b"")),
                ("both", Some(b"x")),
                ("both", None),
                ("tenant", Some(b"acme"))
            ]
        );
        let own = headers(&Envelope::new("orders", "x").with_header("null", ""), &HeaderNames::default()).unwrap();
        assert_eq!(own.get(0).value, Some(&b""[..]), "what the application sets is what it set");
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn what_kafka_has_no_place_for_are_headers() {
        let mut envelope = Envelope::new("orders", "x")
            .with_header("tenant", "acme")
            .with_header("Message-ID", "copied")
            .with_id("m1")
            .with_correlation_id("c1")
            .with_content_type("application/json")
            .with_reply_to("answers");
        envelope.headers_mut().append("tenant", "twice");
        let expected = [
            ("tenant", "acme"),
            ("tenant", "twice"),
            ("message-id", "m1"),
            ("correlation-id", "c1"),
            ("content-type", "application/json"),
            ("reply-to", "answers"),
        ];
        assert_eq!(written(&envelope), pairs(&expected), "ATTR-K-09");
    }

    #[test]
    fn the_headers_have_the_names_that_are_set() {
        let envelope = Envelope::new("orders", "x")
            .with_header("correlation-id", "of the application")
            .with_header("Correlation_ID", "copied")
            .with_id("m1")
            .with_correlation_id("c1")
            .with_content_type("text/plain")
            .with_reply_to("answers");
        let native = headers(&envelope, &HeaderNames::faststream()).unwrap();
        let all: Vec<_> = native.iter().map(|one| (one.key, one.value.unwrap())).collect();
        let expected: [(&str, &[u8]); 5] = [
            ("correlation-id", b"of the application"),
            ("message_id", b"m1"),
            ("correlation_id", b"c1"),
            ("content-type", b"text/plain"),
            ("reply_to", b"answers"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_message_without_headers_has_none() {
        assert!(headers(&Envelope::new("orders", "x").with_key("42"), &HeaderNames::default()).is_none());
    }

    #[test]
    fn a_header_of_the_user_stays_where_there_is_no_property() {
        let envelope = Envelope::new("orders", "x").with_header("message-id", "mine");
        assert_eq!(written(&envelope), pairs(&[("message-id", "mine")]));
    }

    #[test]
    fn null_and_empty_are_not_the_same() {
        let report = Report::new(false);
        let parts = |envelope: &Envelope| {
            let record = record(envelope, &report, &HeaderNames::default()).unwrap();
            (record.key.map(<[u8]>::to_vec), record.payload.map(<[u8]>::to_vec))
        };
        assert_eq!(parts(&Envelope::new("orders", "x").without_payload().with_key("42")), (Some(b"42".to_vec()), None));
        assert_eq!(parts(&Envelope::new("orders", "").with_key("")), (Some(vec![]), Some(vec![])));
        assert_eq!(parts(&Envelope::new("orders", "x")), (None, Some(b"x".to_vec())));
    }

    proptest! {
        #[test]
        fn no_message_makes_the_record_panic(name in ".*", key in ".*", header in ".*", value in ".*") {
            let envelope = Envelope::new(name, value.clone()).with_key(key).with_header(header, value);
            let _ = record(&envelope, &Report::new(false), &HeaderNames::default());
        }
    }
}

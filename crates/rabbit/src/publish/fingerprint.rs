use std::hash::{DefaultHasher, Hash, Hasher};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

/// How much of a body counts at either end.
const END: usize = 256;

/// By what a returned message is recognised: the client does not say which publish it belongs to.
///
/// Publishes that look alike in all of it are interchangeable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint {
    /// Of all that the publisher wrote.
    pub(super) exact: u64,
    /// Of exchange and key, for a server that changes headers on the way in.
    pub(super) place: u64,
}

impl Fingerprint {
    pub(super) fn new(exchange: &str, key: &str, properties: &BasicProperties, body: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (exchange, key).hash(&mut hasher);
        let place = hasher.finish();
        (properties.message_id(), properties.correlation_id(), properties.reply_to(), properties.kind())
            .hash(&mut hasher);
        if let Some(headers) = properties.headers() {
            hash_table(headers, &mut hasher);
        }
        body.len().hash(&mut hasher);
        if body.len() <= 2 * END {
            body.hash(&mut hasher);
        } else {
            (body.get(..END), body.get(body.len() - END..)).hash(&mut hasher);
        }
        Self { exact: hasher.finish(), place }
    }
}

fn hash_table(table: &FieldTable, hasher: &mut DefaultHasher) {
    // The server takes this header away.
    for (name, value) in table.into_iter().filter(|(name, _)| name.as_str() != "BCC") {
        name.hash(hasher);
        hash_value(value, hasher);
    }
}

fn hash_value(value: &AMQPValue, hasher: &mut DefaultHasher) {
    match value {
        AMQPValue::Boolean(value) => value.hash(hasher),
        // The server sends some whole numbers back as others of the same value.
        AMQPValue::ShortShortInt(value) => i64::from(*value).hash(hasher),
        AMQPValue::ShortShortUInt(value) => i64::from(*value).hash(hasher),
        AMQPValue::ShortInt(value) => i64::from(*value).hash(hasher),
        AMQPValue::ShortUInt(value) => i64::from(*value).hash(hasher),
        AMQPValue::LongInt(value) => i64::from(*value).hash(hasher),
        AMQPValue::LongUInt(value) => i64::from(*value).hash(hasher),
        AMQPValue::LongLongInt(value) => value.hash(hasher),
        AMQPValue::Float(value) => value.to_bits().hash(hasher),
        AMQPValue::Double(value) => value.to_bits().hash(hasher),
        AMQPValue::DecimalValue(value) => value.hash(hasher),
        AMQPValue::ShortString(value) => value.as_str().as_bytes().hash(hasher),
        AMQPValue::LongString(value) => value.as_bytes().hash(hasher),
        AMQPValue::ByteArray(value) => value.as_slice().hash(hasher),
        AMQPValue::FieldArray(values) => values.as_slice().iter().for_each(|value| hash_value(value, hasher)),
        AMQPValue::Timestamp(value) => value.hash(hasher),
        AMQPValue::FieldTable(table) => hash_table(table, hasher),
        AMQPValue::Void => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_publisher_wrote_tells_messages_apart() {
        let properties = |text: &str| {
            let mut headers = FieldTable::default();
            headers.insert("tenant".into(), AMQPValue::LongString(text.into()));
            BasicProperties::default().with_headers(headers)
        };
        let print = |key, tenant, body: &[u8]| Fingerprint::new("shop", key, &properties(tenant), body);
        let one = print("a", "acme", b"1");
        assert_eq!(one, print("a", "acme", b"1"));
        for other in [print("b", "acme", b"1"), print("a", "other", b"1"), print("a", "acme", b"2")] {
            assert_ne!(one.exact, other.exact);
        }
        assert_eq!(one.place, print("a", "other", b"2").place);
        assert_ne!(print("a", "x", &[1; 600]).exact, print("a", "x", &[1; 601]).exact);
    }
}

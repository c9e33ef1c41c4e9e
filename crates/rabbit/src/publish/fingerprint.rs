use std::hash::{Hash, Hasher};

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
        let mut hasher = Mixer::default();
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

/// Hashes eight bytes at a time: each publish pays for it, and what looks alike by chance goes to the same place.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        // An odd number whose bits have no pattern: the fraction of the golden ratio.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0.rotate_left(23) ^ word ^ FACTOR) * u128::from(FACTOR);
        let [low, high] = [product, product >> u64::BITS].map(|half| half as u64);
        self.0 = low ^ high;
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        let rest = rest.iter().fold(rest.len() as u64, |word, byte| (word << 8) | u64::from(*byte));
        self.mix(rest);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn hash_table(table: &FieldTable, hasher: &mut Mixer) {
    // The server takes this header away.
    for (name, value) in table.into_iter().filter(|(name, _)| name.as_str() != "BCC") {
        name.hash(hasher);
        hash_value(value, hasher);
    }
}

fn hash_value(value: &AMQPValue, hasher: &mut Mixer) {
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
    use std::collections::HashSet;

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

    #[test]
    fn each_byte_counts_and_its_place() {
        let print = |body: &[u8]| Fingerprint::new("", "a", &BasicProperties::default(), body).exact;
        let mut prints: HashSet<u64> =
            (0..20).map(|at| print(&[&vec![0; at][..], &[1], &vec![0; 19 - at]].concat())).collect();
        prints.extend([print(b"12345678abcdefgh"), print(b"abcdefgh12345678"), print(&[0; 16]), print(&[0; 17])]);
        assert_eq!(prints.len(), 24);
    }
}

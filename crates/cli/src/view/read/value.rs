//! Attributes and their values.

use opentelemetry::{KeyValue, Value};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as Entry};

use super::Reading;

/// How many attributes a span has at most. The SDKs keep as many by default.
const MOST: usize = 128;

/// The longest key, in characters.
const KEY: usize = 200;

/// The longest value, in characters.
pub(super) const LONGEST: usize = 1024;

/// A list is not written any further when its text has this many bytes.
const ENOUGH: usize = 4 * LONGEST;

/// Reads attributes: the first 128, with values of up to 1,024 characters.
pub(super) fn attributes(list: Vec<Entry>, reading: &mut Reading) -> Vec<KeyValue> {
    let list = reading.first(list, MOST);
    list.into_iter()
        .map(|Entry { key, value, .. }| KeyValue::new(reading.cut(key, KEY), read(value, reading)))
        .collect()
}

fn read(value: Option<AnyValue>, reading: &mut Reading) -> Value {
    match value.and_then(|value| value.value) {
        Some(Any::BoolValue(truth)) => Value::Bool(truth),
        Some(Any::IntValue(number)) => Value::I64(number),
        Some(Any::DoubleValue(number)) => Value::F64(number),
        Some(Any::StringValue(text)) => Value::String(reading.cut(text, LONGEST).into()),
        other => Value::String(reading.cut(text(&AnyValue { value: other }), LONGEST).into()),
    }
}

/// Returns a value as text: lists in brackets, and of bytes only how many there are.
pub(super) fn text(value: &AnyValue) -> String {
    let mut text = String::new();
    write(value, &mut text, false);
    text
}

/// Writes a value until the text is longer than it may be. What is within a list has quotation marks.
fn write(value: &AnyValue, text: &mut String, within: bool) {
    match &value.value {
        None => text.push_str("null"),
        Some(Any::StringValue(value)) if within => text.push_str(&format!("{value:?}")),
        Some(Any::StringValue(value)) => text.push_str(value),
        Some(Any::BoolValue(value)) => text.push_str(&value.to_string()),
        Some(Any::IntValue(value)) => text.push_str(&value.to_string()),
        Some(Any::DoubleValue(value)) => text.push_str(&value.to_string()),
        Some(Any::BytesValue(bytes)) => text.push_str(&format!("{} bytes", bytes.len())),
        // Refers to a table that traces, metrics and logs do not have.
        Some(Any::StringValueStrindex(_)) => text.push_str("null"),
        Some(Any::ArrayValue(list)) => {
            text.push('[');
            for (at, value) in list.values.iter().enumerate() {
                if text.len() > ENOUGH {
                    break;
                }
                text.push_str(if at > 0 { "," } else { "" });
                write(value, text, true);
            }
            text.push(']');
        }
        Some(Any::KvlistValue(list)) => {
            text.push('{');
            for (at, entry) in list.values.iter().enumerate() {
                if text.len() > ENOUGH {
                    break;
                }
                text.push_str(if at > 0 { "," } else { "" });
                text.push_str(&format!("{:?}:", entry.key));
                match &entry.value {
                    Some(value) => write(value, text, true),
                    None => text.push_str("null"),
                }
            }
            text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue as Entry, KeyValueList};

    use super::super::Reading;
    use super::{ENOUGH, KEY, LONGEST, MOST, attributes, text};

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn entry(key: &str, value: Any) -> Entry {
        Entry { key: key.to_owned(), value: Some(any(value)), ..Entry::default() }
    }

    #[test]
    fn values_of_all_kinds_are_text() {
        let list = |values| Any::ArrayValue(ArrayValue { values });
        let table = Any::KvlistValue(KeyValueList { values: vec![entry("a", Any::IntValue(1)), Entry::default()] });
        for (value, expected) in [
            (Any::StringValue("a\"b".to_owned()), "a\"b"),
            (Any::BoolValue(true), "true"),
            (Any::DoubleValue(f64::NAN), "NaN"),
            (Any::BytesValue(vec![0; 3]), "3 bytes"),
            (
                list(vec![any(Any::StringValue("a".to_owned())), any(Any::IntValue(2)), AnyValue::default()]),
                "[\"a\",2,null]",
            ),
            (table, "{\"a\":1,\"\":null}"),
        ] {
            assert_eq!(text(&any(value)), expected);
        }
    }

    #[test]
    fn lists_that_are_too_long_or_too_deep_end_early() {
        let wide = Any::ArrayValue(ArrayValue { values: vec![any(Any::IntValue(7)); 100_000] });
        assert!(text(&any(wide)).len() <= ENOUGH + 4);
        let deep = (0..90).fold(Any::IntValue(1), |value, _| Any::ArrayValue(ArrayValue { values: vec![any(value)] }));
        assert!(text(&any(deep)).starts_with("[[["));
    }

    #[test]
    fn attributes_have_limits() {
        let mut reading = Reading::default();
        let long = entry(&"k".repeat(KEY + 1), Any::StringValue("é".repeat(LONGEST + 1)));
        let read = attributes(vec![long; MOST + 1], &mut reading);
        assert_eq!(read.len(), MOST);
        assert_eq!(read[0].key.as_str().chars().count(), KEY + 1);
        assert!(read[0].value.as_str().ends_with("é…"));
        assert_eq!(reading.losses.cut, 1 + 2 * MOST as u64);
    }
}

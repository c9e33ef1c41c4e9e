//! Reading the attributes of a span, one or all.

use std::collections::BTreeMap;

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// Returns the value of an attribute of a span.
///
/// # Examples
///
/// ```
/// use opentelemetry::trace::{Span, Tracer, TracerProvider};
/// use opentelemetry::KeyValue;
/// use throughline_testing::attribute;
///
/// let capture = throughline_testing::Capture::new();
/// let mut span = capture.tracer_provider().tracer("shop").start("checkout");
/// span.set_attribute(KeyValue::new("items", 3));
/// span.end();
///
/// assert_eq!(attribute(capture.tree().find("checkout"), "items"), Some(&3.into()));
/// ```
pub fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| &attribute.value)
}

/// Returns a complete set of attributes (of a span, a link, an event), for comparing it as a whole.
///
/// # Panics
///
/// When a key is there twice: the SDK does not remove duplicates, and backends disagree on which one wins.
///
/// # Examples
///
/// ```
/// use opentelemetry::KeyValue;
/// use throughline_testing::attributes;
///
/// let found = [KeyValue::new("items", 3), KeyValue::new("express", true)];
/// assert_eq!(attributes(&found), [("express", true.into()), ("items", 3.into())].into());
/// ```
#[track_caller]
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, Value> {
    let mut set = BTreeMap::new();
    for attribute in attributes {
        if let Some(first) = set.insert(attribute.key.as_str(), attribute.value.clone()) {
            panic!("attribute {} is there twice: {first:?} and {:?}", attribute.key, attribute.value);
        }
    }
    set
}

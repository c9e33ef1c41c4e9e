//! W3C Baggage: [`parse()`] and [`format()`] for the text, and the propagator that carries it.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};

use super::Carrier;
use super::limits::{self, MAX_BYTES, MAX_MEMBERS};
use super::percent;

const BAGGAGE: &str = "baggage";

static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [BAGGAGE.into()]);

/// A propagator of baggage in the header `baggage` (W3C Baggage).
///
/// It replaces the propagator of the SDK, which changes values on the way, lets properties grow into members of their
/// own, and enforces no limits when it writes. What it does:
///
/// - Every value arrives as it was set, whatever it contains. A `+` is written as `%2B`: OpenTelemetry for Python reads a bare one as a
///   space. What is read is not changed so: a bare `+` stays one, as the specification has it.
/// - Properties travel as they are; those that break the grammar are left out, on both ways.
/// - Several headers are read as one. Over a limit whole members are dropped and counted, see
///   [`dropped_members`].
/// - A missing, empty or wholly malformed header leaves the baggage of the given context as it was.
/// - Nothing of the content is ever logged.
///
/// The entry `with_batch=True`, which FastStream adds to its batches, is neither read nor written.
///
/// [`dropped_members`]: crate::propagation::dropped_members
///
/// # Examples
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::baggage::BaggageExt;
/// use opentelemetry::propagation::TextMapPropagator;
/// use throughline_core::Headers;
/// use throughline_core::propagation::{BaggagePropagator};
///
/// let propagator = BaggagePropagator::new();
/// let mut headers = Headers::new();
/// headers.append("baggage", "tenant=acme%20ltd");
///
/// let cx = propagator.extract_with_context(&Context::new(), &headers);
/// assert_eq!(cx.baggage().get("tenant").map(|value| value.as_str()), Some("acme ltd"));
///
/// let mut outgoing = Headers::new();
/// propagator.inject_context(&cx, &mut outgoing);
/// assert_eq!(outgoing.get("baggage"), Some("tenant=acme%20ltd"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct BaggagePropagator {
    plus_is_space: bool,
}

impl BaggagePropagator {
    /// Creates the propagator.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use throughline_core::propagation::BaggagePropagator;
    ///
    /// assert!(BaggagePropagator::new().fields().eq(["baggage"]));
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { plus_is_space: false }
    }

    /// Reads a bare `+` as a space, for a service whose messages come from OpenTelemetry for Python, FastStream among them: that writes a
    /// space so, against the specification. The default is to read a plus sign, which Go and the SDK of Rust write bare. What is written stays
    /// the same.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::Context;
    /// use opentelemetry::baggage::BaggageExt;
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use throughline_core::Headers;
    /// use throughline_core::propagation::{BaggagePropagator, Propagators, TraceContextPropagator};
    ///
    /// let baggage = BaggagePropagator::new().plus_as_space();
    /// let propagators = Propagators::none().with(TraceContextPropagator::new()).with(baggage);
    /// let headers = Headers::from_iter([("baggage", "sum=1%2B1+is+2")]);
    /// let cx = propagators.extract_with_context(&Context::new(), &headers);
    /// assert_eq!(cx.baggage().get("sum").map(|value| value.as_str()), Some("1+1 is 2"));
    /// ```
    #[must_use]
    pub const fn plus_as_space(mut self) -> Self {
        self.plus_is_space = true;
        self
    }

    /// Returns the context with the baggage of the headers, or `None` when they hold no valid member.
    pub(super) fn find(&self, cx: &Context, extractor: &dyn Extractor) -> Option<Context> {
        Some(cx.with_baggage(self.read(extractor)?))
    }

    /// Returns the baggage of the headers alone.
    pub(super) fn read(&self, extractor: &dyn Extractor) -> Option<Baggage> {
        let baggage = read_all(&extractor.get_all(BAGGAGE)?, self.plus_is_space);
        (!baggage.is_empty()).then_some(baggage)
    }

    /// Writes the baggage into headers that hold none.
    pub(super) fn put(&self, cx: &Context, carrier: &mut dyn Carrier) {
        if let Some(text) = format(cx.baggage()) {
            carrier.put(BAGGAGE, text.as_bytes());
        }
    }
}

impl TextMapPropagator for BaggagePropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        if let Some(text) = format(cx.baggage()) {
            injector.set(BAGGAGE, text);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.find(cx, extractor).unwrap_or_else(|| cx.clone())
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(FIELDS.as_slice())
    }
}

/// Reads the value of one `baggage` header.
///
/// Malformed members are skipped; of a repeated key the last member wins. A text over 8192 bytes gives no
/// baggage, and of more than 64 members the first 64 are kept.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::baggage;
///
/// let entries = baggage::parse("tenant=acme;internal, formula=a=b%20c, no value");
/// assert_eq!(entries.len(), 2);
/// assert_eq!(entries.get("formula").map(|value| value.as_str()), Some("a=b c"));
/// ```
#[must_use]
pub fn parse(header: &str) -> Baggage {
    parse_all(&[header])
}

/// Reads the values of several `baggage` headers as if they were one, joined by commas.
///
/// The limits apply to all of them together.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::baggage;
///
/// let entries = baggage::parse_all(&["tenant=acme,stage=1", "stage=2"]);
/// assert_eq!(entries.get("stage").map(|value| value.as_str()), Some("2"));
/// ```
#[must_use]
pub fn parse_all(headers: &[&str]) -> Baggage {
    read_all(headers, false)
}

fn read_all(headers: &[&str], plus_is_space: bool) -> Baggage {
    let mut baggage = Baggage::new();
    if !limits::may_read(headers.iter().map(|header| header.len()).sum()) {
        return baggage;
    }
    let members = headers.iter().flat_map(|header| header.split(','));
    let mut dropped = 0;
    for (index, member) in members.filter_map(Member::parse).enumerate() {
        // Before the escapes are undone, among which are those of plus signs.
        let spaced = (plus_is_space && member.value.contains('+')).then(|| member.value.replace('+', " "));
        let value = percent::decode(spaced.as_deref().unwrap_or(member.value)).into_owned();
        let properties = properties(member.properties);
        if index >= MAX_MEMBERS || !limits::insert(&mut baggage, member.key, value, properties) {
            dropped += 1;
        }
    }
    limits::count_dropped(dropped);
    baggage
}

/// Writes baggage as the value of a `baggage` header, or returns `None` when there is nothing to write.
///
/// Members are ordered by key, so the same baggage always gives the same text. Up to 64 members and 8192 bytes
/// everything is written; over that, members that no longer fit are left out, counted and logged without
/// content.
///
/// # Examples
///
/// ```
/// use opentelemetry::KeyValue;
/// use opentelemetry::baggage::Baggage;
/// use throughline_core::propagation::baggage;
///
/// let entries = Baggage::from([KeyValue::new("stage", "2"), KeyValue::new("share", "50 %")]);
/// assert_eq!(baggage::format(&entries).as_deref(), Some("share=50%20%25,stage=2"));
/// assert_eq!(baggage::format(&Baggage::new()), None);
/// ```
#[must_use]
pub fn format(baggage: &Baggage) -> Option<String> {
    if baggage.is_empty() {
        return None;
    }
    let entries = sent_entries(baggage);
    let plain = entries.iter().map(|(key, value, properties)| key.len() + value.len() + properties.len() + 3);
    let mut text = String::with_capacity(plain.sum::<usize>().min(MAX_BYTES));
    let mut written = 0;
    for (key, value, properties) in &entries {
        let before = text.len();
        if written > 0 {
            text.push(',');
        }
        text.extend([key, "="]);
        percent::encode_into(&mut text, value);
        for property in valid_properties(properties) {
            text.push(';');
            property.write(&mut text);
        }
        if written < MAX_MEMBERS && text.len() <= MAX_BYTES {
            written += 1;
        } else {
            text.truncate(before);
        }
    }
    limits::count_dropped(entries.len() - written);
    (written > 0).then_some(text)
}

/// Copies baggage, which the API's type cannot do itself.
pub(crate) fn copy(baggage: &Baggage) -> Baggage {
    let mut copy = Baggage::new();
    for (key, (value, metadata)) in baggage {
        copy.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
    }
    copy
}

/// Returns key, value and properties of the entries that travel, in the order of the keys.
// BAGG-08.
pub(super) fn sent_entries(baggage: &Baggage) -> Vec<(&str, &str, &str)> {
    let entries = baggage.iter().map(|(key, (value, metadata))| (key.as_str(), value.as_str(), metadata.as_str()));
    let mut entries: Vec<_> = entries.filter(|(key, value, _)| is_sent(key, value)).collect();
    entries.sort_unstable();
    entries
}

/// Tells whether an entry travels: its key is a token, and it is not the marker FastStream puts on its batches.
pub(super) fn is_sent(key: &str, value: &str) -> bool {
    is_token(key) && (key, value) != ("with_batch", "True")
}

/// One member of the list as it stands in the text.
struct Member<'a> {
    key: &'a str,
    value: &'a str,
    properties: &'a str,
}

impl<'a> Member<'a> {
    /// Reads a member, or returns `None` when it breaks the grammar or is not for us.
    // BAGG-01.
    fn parse(text: &'a str) -> Option<Self> {
        let (pair, properties) = text.split_once(';').unwrap_or((text, ""));
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (trim(key), trim(value));
        (is_sent(key, value) && is_octets(value)).then_some(Self { key, value, properties })
    }
}

/// One property of a member: a key, or a key and a value. Its text is never decoded.
// BAGG-06.
struct Property<'a> {
    key: &'a str,
    value: Option<&'a str>,
}

impl<'a> Property<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (trim(key), Some(trim(value))),
            None => (trim(text), None),
        };
        (is_token(key) && value.is_none_or(is_octets)).then_some(Self { key, value })
    }

    fn write(&self, text: &mut String) {
        text.push_str(self.key);
        if let Some(value) = self.value {
            text.extend(["=", value]);
        }
    }
}

/// Iterates over the properties that match the grammar.
fn valid_properties(text: &str) -> impl Iterator<Item = Property<'_>> {
    text.split(';').filter_map(Property::parse)
}

/// Returns the properties as they are stored: those that match the grammar, joined by `;`.
fn properties(text: &str) -> String {
    let mut stored = String::new();
    for property in valid_properties(text) {
        if !stored.is_empty() {
            stored.push(';');
        }
        property.write(&mut stored);
    }
    stored
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_octets(text: &str) -> bool {
    text.bytes().all(percent::is_octet)
}

/// Tells whether the text is a token as HTTP defines it.
fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

#[cfg(test)]
mod tests;

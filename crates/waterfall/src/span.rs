//! What is drawn: finished spans, and what was said while they ran.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};

use crate::style::clean;

/// Attributes that the picture shows in another way, or that say nothing to somebody who wrote the program.
const PLUMBING: [&str; 12] = [
    "busy_ns",
    "code.",
    "error.type",
    "exception.",
    "idle_ns",
    "level",
    "messaging.",
    "network.",
    "otel.",
    "server.",
    "target",
    "thread.",
];

/// A finished span.
///
/// Names and values may come from strangers: they are made safe when they are drawn.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use opentelemetry::KeyValue;
/// use opentelemetry::trace::{SpanId, TraceId};
/// use throughline_waterfall::Span;
///
/// let start = SystemTime::UNIX_EPOCH;
/// let mut span = Span::new(TraceId::from(1), SpanId::from(2), "stock", "reserve", start, start + Duration::from_millis(12));
/// span.attributes.push(KeyValue::new("items", 3));
/// assert_eq!(span.duration(), Duration::from_millis(12));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The id of its parent; [`SpanId::INVALID`] at the root of a trace.
    pub parent: SpanId,
    /// The name of the service that made it.
    pub service: Arc<str>,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its kind.
    pub kind: SpanKind,
    /// When it started.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Its place among spans that started at the same time.
    pub order: u64,
    /// Its attributes.
    pub attributes: Vec<KeyValue>,
    /// Whether it failed.
    pub status: Status,
    /// The spans that it is linked to.
    pub links: Vec<Link>,
    /// What happened while it ran.
    pub events: Vec<Event>,
    /// The baggage that it was started with.
    pub baggage: Vec<(String, String)>,
}

/// A span that another one is linked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// The trace of that span.
    pub trace_id: TraceId,
    /// The id of that span.
    pub span_id: SpanId,
}

/// An event of a span.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// When it happened.
    pub time: SystemTime,
    /// Its name.
    pub name: Cow<'static, str>,
}

/// A line below a span: a log record or an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remark {
    /// The span it belongs to.
    pub span: SpanId,
    /// When it was made.
    pub time: SystemTime,
    /// What it says.
    pub text: String,
    /// Whether it tells of an exception. A span that failed shows its error already, and no exception.
    pub exception: bool,
}

impl Span {
    /// Creates an internal span that has no parent, no attributes and no links, and did not fail.
    pub fn new(
        trace_id: TraceId,
        id: SpanId,
        service: impl Into<Arc<str>>,
        name: impl Into<Cow<'static, str>>,
        start: SystemTime,
        end: SystemTime,
    ) -> Self {
        Self {
            trace_id,
            id,
            parent: SpanId::INVALID,
            service: service.into(),
            name: name.into(),
            kind: SpanKind::Internal,
            start,
            end,
            order: 0,
            attributes: Vec::new(),
            status: Status::Unset,
            links: Vec::new(),
            events: Vec::new(),
            baggage: Vec::new(),
        }
    }

    /// Returns how long it ran: nothing if it ended before it started.
    pub fn duration(&self) -> Duration {
        self.end.duration_since(self.start).unwrap_or_default()
    }

    /// Returns what went wrong: the type, the description, or both. It is safe to print.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use opentelemetry::KeyValue;
    /// use opentelemetry::trace::{SpanId, Status, TraceId};
    /// use throughline_waterfall::Span;
    ///
    /// let now = SystemTime::now();
    /// let mut span = Span::new(TraceId::from(1), SpanId::from(2), "stock", "reserve", now, now);
    /// assert_eq!(span.error(), None);
    /// span.attributes.push(KeyValue::new("error.type", "OutOfStock"));
    /// span.status = Status::error("no chairs left");
    /// assert_eq!(span.error().as_deref(), Some("OutOfStock: no chairs left"));
    /// ```
    pub fn error(&self) -> Option<String> {
        let kind = self.attributes.iter().find(|attribute| attribute.key.as_str() == "error.type");
        let kind = kind.map(|attribute| attribute.value.to_string());
        let description = match &self.status {
            Status::Error { description } => Some(description.as_ref()),
            Status::Ok | Status::Unset => None,
        };
        let text = match (kind, description) {
            (None, None) => return None,
            (None, Some("")) => "error".to_owned(),
            (None, Some(description)) => description.to_owned(),
            (Some(kind), Some(description)) if !description.is_empty() && !description.starts_with(&kind) => {
                format!("{kind}: {description}")
            }
            (Some(_), Some(description)) if !description.is_empty() => description.to_owned(),
            (Some(kind), _) => kind,
        };
        Some(clean(&text))
    }

    /// The size of a batch, then the attributes of the user.
    pub(crate) fn notes(&self) -> Vec<String> {
        let batch =
            self.attributes.iter().filter(|attribute| attribute.key.as_str() == "messaging.batch.message_count");
        let own = self.attributes.iter().filter(|attribute| !is_plumbing(attribute.key.as_str()));
        let own = own.map(|attribute| {
            let key = attribute.key.as_str();
            clean(&format!("{}={}", key.strip_prefix("throughline.").unwrap_or(key), attribute.value))
        });
        batch.map(|attribute| clean(&format!("batch of {}", attribute.value))).chain(own).collect()
    }
}

fn is_plumbing(key: &str) -> bool {
    PLUMBING.iter().any(|plumbing| if plumbing.ends_with('.') { key.starts_with(plumbing) } else { key == *plumbing })
}

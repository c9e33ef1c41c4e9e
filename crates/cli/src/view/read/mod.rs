//! Makes what is drawn of what OTLP says.
//!
//! Nothing that a sender writes is longer here than its limit, and what is not as OTLP says is refused with a reason.

mod logs;
mod metrics;
mod spans;
mod value;

pub(super) use self::logs::{Records, records};
pub(super) use self::metrics::points;
pub(super) use self::spans::spans;

use std::sync::Arc;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::resource::v1::Resource;
use throughline_waterfall::clean;

use super::tally::Losses;

/// The longest name of a service, of a metric or of its unit, in characters.
const NAME: usize = 200;

/// What is lost while something is read, and why.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) losses: Losses,
    /// The first reason why something was refused.
    pub(super) reason: Option<String>,
}

/// Who sends.
struct Sender {
    service: Arc<str>,
    instance: Arc<str>,
}

impl Reading {
    fn refuse(&mut self, reason: String) {
        self.losses.refused += 1;
        self.reason.get_or_insert(reason);
    }

    /// Cuts a text that has more characters than `longest`.
    fn cut(&mut self, mut text: String, longest: usize) -> String {
        if let Some((end, _)) = text.char_indices().nth(longest) {
            self.losses.cut += 1;
            text.truncate(end);
            text.push('…');
            text.shrink_to_fit();
        }
        text
    }

    /// Takes the first entries of a list.
    fn first<T>(&mut self, mut list: Vec<T>, most: usize) -> Vec<T> {
        if list.len() > most {
            self.losses.cut += 1;
            list.truncate(most);
        }
        list
    }

    fn sender(&mut self, resource: Option<Resource>) -> Sender {
        let attributes = resource.map(|resource| resource.attributes).unwrap_or_default();
        let mut named = |key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key == key)?;
            let text = value::text(found.value.as_ref()?);
            Some(Arc::from(clean(&self.cut(text, NAME))))
        };
        Sender {
            service: named("service.name").unwrap_or_else(|| Arc::from("unknown_service")),
            instance: named("service.instance.id").unwrap_or_else(|| Arc::from("")),
        }
    }
}

/// Reads a trace id; `None` if it is none.
fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    Some(TraceId::from_bytes(bytes.try_into().ok()?)).filter(|id| *id != TraceId::INVALID)
}

/// Reads a span id; `None` if it is none.
fn span_id(bytes: &[u8]) -> Option<SpanId> {
    Some(SpanId::from_bytes(bytes.try_into().ok()?)).filter(|id| *id != SpanId::INVALID)
}

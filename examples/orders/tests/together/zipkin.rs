//! Zipkin, and what it shows through its own interface.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::api::{get_json, until};
use crate::zipkin_server::ZipkinServer;

/// A span as Zipkin shows it, with its name in small letters.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    parent: Option<String>,
    start: u64,
    tags: BTreeMap<String, String>,
}

/// What Zipkin shows.
pub(crate) struct Zipkin(ZipkinServer);

impl Zipkin {
    pub(crate) async fn start() -> Self {
        Self(ZipkinServer::start().await)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Returns the trace that has a span with this tag, when it has as many spans as this.
    pub(crate) async fn trace(&self, tag: &str, value: &str, count: usize) -> Vec<Span> {
        let mut last = Vec::new();
        until(&format!("a trace with {tag}={value} has {count} spans"), async || {
            let path = format!("/api/v2/traces?annotationQuery={tag}%3D{value}&limit=1");
            let traces = get_json(self.0.address, &path).await?;
            last = traces.get(0)?.as_array()?.iter().map(Span::read).collect();
            (last.len() >= count).then(|| last.clone())
        })
        .await
    }

    /// Returns the spans of a service with this name, in all traces.
    pub(crate) async fn spans(&self, service: &str, name: &str) -> Vec<Span> {
        let path = format!("/api/v2/traces?serviceName={service}&spanName={}&limit=1000", name.replace(' ', "%20"));
        let traces = get_json(self.0.address, &path).await.unwrap_or_default();
        let spans = traces.as_array().into_iter().flatten().flat_map(|trace| trace.as_array().into_iter().flatten());
        spans.map(Span::read).filter(|span| span.service == service && span.name == name).collect()
    }
}

impl Span {
    fn read(span: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let tags = span["tags"].as_object().into_iter().flatten();
        Self {
            service: text(&span["localEndpoint"]["serviceName"]),
            name: text(&span["name"]),
            trace: text(&span["traceId"]),
            id: text(&span["id"]),
            parent: span["parentId"].as_str().map(str::to_owned),
            start: span["timestamp"].as_u64().unwrap_or_default(),
            tags: tags.map(|(key, value)| (key.clone(), text(value))).collect(),
        }
    }

    /// Returns the baggage that it shows, as `key=value` with commas.
    pub(crate) fn baggage(&self) -> String {
        let shown = ["coupon", "tenant", "warehouse"].into_iter().filter_map(|key| Some((key, self.tags.get(key)?)));
        shown.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }

    /// Says whether it is linked to another one. Zipkin has no links: the Collector writes them as tags.
    pub(crate) fn links_to(&self, other: &Self) -> bool {
        let links = self.tags.iter().filter(|(key, _)| key.starts_with("otlp.link."));
        links.into_iter().any(|(_, link)| link.contains(&other.trace) && link.contains(&other.id))
    }
}

/// Draws a trace: a line for each span, below its parent in the order of time, with its service, its name, and its baggage.
pub(crate) fn picture(spans: &[Span]) -> String {
    let mut text = String::from("\n");
    let is_there = |id: &String| spans.iter().any(|span| span.id == *id);
    draw(&mut text, spans, 0, &|span| !span.parent.as_ref().is_some_and(is_there));
    text
}

fn draw(text: &mut String, spans: &[Span], depth: usize, is_here: &dyn Fn(&Span) -> bool) {
    let mut here: Vec<&Span> = spans.iter().filter(|span| is_here(span)).collect();
    here.sort_by_key(|span| span.start);
    for span in here {
        let _ = writeln!(text, "{}{} {} [{}]", "  ".repeat(depth), span.service, span.name, span.baggage());
        draw(text, spans, depth + 1, &|child| child.parent.as_ref() == Some(&span.id));
    }
}

//! OTLP as JSON, as the file of the Collector has it, a line for each request.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::span::Span;

/// The kinds by their numbers.
const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/// A log record, with the service that wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) service: String,
    pub(crate) severity: String,
    pub(crate) body: String,
    pub(crate) trace: String,
    pub(crate) span: String,
}

/// Returns the parts of an array; what is not there has none.
pub(crate) fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// Returns a value as text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the requests in the file: none before the first.
pub(crate) fn requests(file: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may be half written.
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Returns the spans in the requests.
pub(crate) fn spans(requests: &[Value]) -> Vec<Span> {
    items(requests, ["resourceSpans", "scopeSpans", "spans"])
        .map(|(service, span)| Span {
            service,
            name: text(&span["name"]),
            kind: kind(&span["kind"]),
            trace: text(&span["traceId"]),
            id: text(&span["spanId"]),
            parent: span["parentSpanId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            links: each(span, "links").map(|link| text(&link["spanId"])).collect(),
            failure: is_failed(&span["status"]["code"]).then(|| text(&span["status"]["message"])),
            attributes: attributes(span),
        })
        .collect()
}

/// Returns the log records in the requests.
pub(crate) fn records(requests: &[Value]) -> Vec<Record> {
    items(requests, ["resourceLogs", "scopeLogs", "logRecords"])
        .map(|(service, record)| Record {
            service,
            severity: text(&record["severityText"]),
            body: value(&record["body"]),
            trace: record["traceId"].as_str().unwrap_or_default().to_owned(),
            span: record["spanId"].as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Returns the attributes of each service in the requests.
pub(crate) fn resources(requests: &[Value], signal: &str) -> Vec<BTreeMap<String, String>> {
    let resources = requests.iter().flat_map(|request| each(request, signal));
    resources.map(|resource| attributes(&resource["resource"])).collect()
}

/// Returns what the requests have of one signal, with the service that each comes from.
pub(crate) fn items<'a>(
    requests: &'a [Value],
    [resource, scope, item]: [&'static str; 3],
) -> impl Iterator<Item = (String, &'a Value)> {
    let resources = requests.iter().flat_map(move |request| each(request, resource));
    resources.flat_map(move |resource| {
        let service = attributes(&resource["resource"]).remove("service.name").unwrap_or_default();
        let items = each(resource, scope).flat_map(move |scope| each(scope, item));
        items.map(move |item| (service.clone(), item))
    })
}

/// A kind is a number for the Collector, and a name for Tempo.
fn kind(kind: &Value) -> String {
    let number = kind.as_u64().and_then(|number| usize::try_from(number).ok());
    let named = kind.as_str().and_then(|name| name.strip_prefix("SPAN_KIND_"));
    let kind = number.and_then(|number| KINDS.get(number).copied()).or(named).expect("a kind of span");
    kind.to_lowercase()
}

fn is_failed(code: &Value) -> bool {
    *code == 2 || *code == "STATUS_CODE_ERROR"
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    each(of, "attributes").map(|attribute| (text(&attribute["key"]), value(&attribute["value"]))).collect()
}

/// What stands in a value, of whatever type it is.
fn value(value: &Value) -> String {
    value.as_object().and_then(|typed| typed.values().next()).map(text).unwrap_or_default()
}

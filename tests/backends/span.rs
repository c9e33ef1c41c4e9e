//! What a backend shows of a span, whatever its format, and all of them as a picture.

use std::collections::BTreeMap;

/// What the picture of the story is in every backend that has links. Of each trace, children in the order of their names.
pub(crate) const STORY: &str = "
billing consumer process stock.reserved -> publish stock.reserved, publish stock.reserved

shop producer publish orders.placed
  shop consumer process orders.dead
  stock consumer process orders.placed ! no warehouse has a unicorn
    stock internal find on the shelves
    stock client publish orders.dead -> publish orders.placed
    stock internal retry ! no warehouse has a unicorn
      stock internal find on the shelves

shop producer publish orders.placed
  stock consumer process orders.placed
    stock internal find on the shelves
    stock producer publish stock.reserved
      billing producer publish invoices.created
        shop consumer process invoices.created

shop producer publish orders.placed
  stock consumer process orders.placed
    stock internal find on the shelves
    stock producer publish stock.reserved
      billing producer publish invoices.created
        shop consumer process invoices.created
    stock internal retry
      stock internal find on the shelves
";

/// How many spans that is.
pub(crate) const SPANS: usize = 22;

/// A span as a backend shows it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    /// In small letters.
    pub(crate) kind: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    /// The ids of the spans that it is linked to.
    pub(crate) links: Vec<String>,
    /// Why it failed, where it did.
    pub(crate) failure: Option<String>,
    /// As text.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Draws all traces: of each span its service, kind and name, `->` where its links lead, and `!` why it failed.
pub(crate) fn picture(spans: &[Span]) -> String {
    let is_there = |id: &String| spans.iter().any(|span| span.id == *id);
    let roots = spans.iter().filter(|span| !span.parent.as_ref().is_some_and(is_there));
    let mut traces: Vec<String> = roots.map(|root| below(root, spans, 0)).collect();
    traces.sort();
    format!("\n{}", traces.join("\n"))
}

fn below(span: &Span, spans: &[Span], depth: usize) -> String {
    let Span { service, kind, name, links, failure, .. } = span;
    let (service, _run) = service.split_once('-').unwrap_or((service, ""));
    let mut line = format!("{}{service} {kind} {name}", "  ".repeat(depth));
    // A link to the parent says nothing more.
    let mut others: Vec<&str> = links
        .iter()
        .filter(|link| span.parent.as_ref() != Some(link))
        .map(|link| spans.iter().find(|span| span.id == **link).map_or("?", |span| &span.name))
        .collect();
    others.sort_unstable();
    if !others.is_empty() {
        line = format!("{line} -> {}", others.join(", "));
    }
    if let Some(failure) = failure {
        line = format!("{line} ! {failure}");
    }
    let mut children: Vec<&Span> =
        spans.iter().filter(|child| child.trace == span.trace && child.parent.as_ref() == Some(&span.id)).collect();
    children.sort_by_key(|child| (&child.service, &child.name));
    let children = children.into_iter().map(|child| below(child, spans, depth + 1));
    std::iter::once(format!("{line}\n")).chain(children).collect()
}

/// Returns the picture as a backend has it that knows no links.
pub(crate) fn without_links(picture: &str) -> String {
    picture.lines().map(|line| format!("{}\n", line.split(" -> ").next().unwrap_or_default())).collect()
}

/// Asserts what the picture does not show: attributes of the span of an order that failed, and of the service.
pub(crate) fn has_attributes(spans: &[Span]) {
    let process = spans.iter().find(|span| span.name == "process orders.placed" && span.failure.is_some());
    let attributes = &process.expect("an order failed").attributes;
    for (key, value) in [
        ("messaging.system", "in_memory"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "orders.placed"),
        ("messaging.message.id", "order-44"),
        ("error.type", "quickstart::orders::NotReserved"),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key} of {attributes:?}");
    }
    let reserved = spans.iter().filter(|span| span.attributes.contains_key("items"));
    let mut items: Vec<_> = reserved.map(|span| (&*span.name, &*span.attributes["items"])).collect();
    items.sort_unstable();
    assert_eq!(items, [("process orders.placed", "1"), ("process orders.placed", "4")], "set by the handler");
    let batch = spans.iter().find(|span| span.name == "process stock.reserved").expect("a batch");
    assert_eq!(batch.attributes.get("messaging.batch.message_count").map(String::as_str), Some("2"));
}

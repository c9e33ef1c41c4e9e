//! The spans of a test as trees: to look at, to search and to assert on.

use std::collections::HashMap;
use std::fmt;

use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

mod attributes;
#[cfg(test)]
mod tests;

pub use self::attributes::{attribute, attributes};

/// The traces a set of spans forms, each as a tree.
///
/// Its `Display` is the picture that [`assert_tree`](Self::assert_tree) compares: one line per span, siblings in the
/// order of their start, an empty line between traces. A link to anything but the own parent is written after the
/// name, and so is a parent that is not among the spans:
///
/// ```text
/// publish orders.placed
/// └─ process orders.placed
///
/// process orders.placed ~ linked from publish orders.placed
///
/// process orders.placed ~ parent not captured
/// ```
///
/// # Examples
///
/// ```
/// use opentelemetry::trace::{Tracer, TracerProvider};
/// use throughline_testing::Capture;
///
/// let capture = Capture::new();
/// let tracer = capture.tracer_provider().tracer("shop");
/// tracer.in_span("checkout", |_| tracer.in_span("publish orders.placed", |_| ()));
///
/// assert_eq!(capture.tree().to_string(), "checkout\n└─ publish orders.placed\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct TraceTree {
    /// By start; spans that start at the same time stay in the order in which they were given.
    spans: Vec<SpanData>,
    children: Vec<Vec<usize>>,
    traces: Vec<Trace>,
}

#[derive(Clone, Debug)]
struct Trace {
    id: TraceId,
    roots: Vec<usize>,
}

/// One line of the picture.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// The lines and corners to the left of the name.
    pub(crate) branch: String,
    pub(crate) depth: usize,
    pub(crate) span: &'a SpanData,
}

impl TraceTree {
    /// Builds the trees of `spans`.
    ///
    /// # Examples
    ///
    /// ```
    /// let tree = throughline_testing::TraceTree::new([]);
    /// assert_eq!(tree.to_string(), "");
    /// ```
    pub fn new(spans: impl IntoIterator<Item = SpanData>) -> Self {
        let mut spans: Vec<SpanData> = spans.into_iter().collect();
        spans.sort_by_key(|span| span.start_time);
        let known: HashMap<(TraceId, SpanId), usize> =
            spans.iter().enumerate().map(|(index, span)| (identity(&span.span_context), index)).collect();
        let mut children = vec![Vec::new(); spans.len()];
        let mut traces: Vec<Trace> = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            let id = span.span_context.trace_id();
            if let Some(&parent) = known.get(&(id, span.parent_span_id)) {
                children[parent].push(index);
                continue;
            }
            match traces.iter_mut().find(|trace| trace.id == id) {
                Some(trace) => trace.roots.push(index),
                None => traces.push(Trace { id, roots: vec![index] }),
            }
        }
        Self { spans, children, traces }
    }

    /// Returns the ids of the traces, in the order of their first span.
    pub fn traces(&self) -> Vec<TraceId> {
        self.traces.iter().map(|trace| trace.id).collect()
    }

    /// Returns the spans without a captured parent, of all traces.
    pub fn roots(&self) -> Vec<&SpanData> {
        self.traces.iter().flat_map(|trace| &trace.roots).map(|&root| &self.spans[root]).collect()
    }

    /// Returns the captured parent of a span.
    pub fn parent(&self, span: &SpanData) -> Option<&SpanData> {
        self.spans.iter().find(|parent| is_parent(&parent.span_context, span))
    }

    /// Returns the children of a span, in the order of their start.
    pub fn children(&self, span: &SpanData) -> Vec<&SpanData> {
        self.spans.iter().filter(|child| is_parent(&span.span_context, child)).collect()
    }

    /// Returns the only span called `name`.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one; the message lists the spans there are.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{SpanKind, Tracer, TracerProvider};
    ///
    /// let capture = throughline_testing::Capture::new();
    /// capture.tracer_provider().tracer("shop").in_span("checkout", |_| ());
    /// assert_eq!(capture.tree().find("checkout").span_kind, SpanKind::Internal);
    /// ```
    #[track_caller]
    pub fn find(&self, name: &str) -> &SpanData {
        match self.find_all(name).as_slice() {
            [span] => span,
            [] => panic!("no span is called {name:?}; there are:\n{}", self.listing()),
            several => {
                panic!("{} spans are called {name:?}, use find_all; there are:\n{}", several.len(), self.listing())
            }
        }
    }

    /// Returns all spans called `name`, in the order of their start.
    pub fn find_all(&self, name: &str) -> Vec<&SpanData> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    /// Asserts that the picture of the spans is `expected`.
    ///
    /// White space around the picture, at the end of lines and what all lines share at their start does not count.
    /// Empty lines between traces do: two roots in one trace and two traces are different things.
    ///
    /// # Panics
    ///
    /// When the pictures differ; the message shows both, and every detail of the spans found.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let capture = throughline_testing::Capture::new();
    /// let tracer = capture.tracer_provider().tracer("shop");
    /// tracer.in_span("checkout", |_| {
    ///     tracer.in_span("publish orders.placed", |_| ());
    ///     tracer.in_span("publish orders.audit", |_| ());
    /// });
    /// capture.tree().assert_tree("
    ///     checkout
    ///     ├─ publish orders.placed
    ///     └─ publish orders.audit
    /// ");
    /// ```
    #[track_caller]
    pub fn assert_tree(&self, expected: &str) {
        let (expected, found) = (unindented(expected), unindented(&self.to_string()));
        if expected != found {
            panic!(
                "the spans form another tree\n\nexpected:\n{expected}\n\nfound:\n{found}\n\nin detail:\n{}",
                self.snapshot()
            );
        }
    }

    /// Names and kinds of all spans, for the messages of failures.
    pub(crate) fn listing(&self) -> String {
        if self.spans.is_empty() {
            return "  (no span at all)".to_owned();
        }
        self.spans.iter().map(|span| format!("  {} ({:?})\n", span.name, span.span_kind)).collect()
    }

    /// The lines of the picture, trace by trace.
    pub(crate) fn rows(&self) -> Vec<Vec<Row<'_>>> {
        self.traces
            .iter()
            .map(|trace| {
                let mut rows = Vec::new();
                for &root in &trace.roots {
                    self.push_rows(root, 0, "", String::new(), &mut rows);
                }
                rows
            })
            .collect()
    }

    fn push_rows<'a>(&'a self, index: usize, depth: usize, indent: &str, branch: String, rows: &mut Vec<Row<'a>>) {
        rows.push(Row { branch, depth, span: &self.spans[index] });
        let children = &self.children[index];
        for (position, &child) in children.iter().enumerate() {
            let (corner, line) = if position + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.push_rows(child, depth + 1, &format!("{indent}{line}"), format!("{indent}{corner}"), rows);
        }
    }

    /// What stands behind the name: links, and a parent that is missing here.
    fn remarks(&self, span: &SpanData) -> String {
        let linked: Vec<&str> = span
            .links
            .iter()
            .filter(|link| !is_parent(&link.span_context, span))
            .map(|link| self.name_of(&link.span_context))
            .collect();
        let mut remarks = String::new();
        if span.parent_span_id != SpanId::INVALID && self.parent(span).is_none() {
            remarks.push_str(" ~ parent not captured");
        }
        if !linked.is_empty() {
            remarks.push_str(&format!(" ~ linked from {}", linked.join(", ")));
        }
        remarks
    }

    fn name_of(&self, context: &SpanContext) -> &str {
        let span = self.spans.iter().find(|span| identity(&span.span_context) == identity(context));
        span.map_or("(not captured)", |span| span.name.as_ref())
    }
}

impl fmt::Display for TraceTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, rows) in self.rows().iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            for row in rows {
                writeln!(f, "{}{}{}", row.branch, row.span.name, self.remarks(row.span))?;
            }
        }
        Ok(())
    }
}

fn identity(context: &SpanContext) -> (TraceId, SpanId) {
    (context.trace_id(), context.span_id())
}

fn is_parent(parent: &SpanContext, child: &SpanData) -> bool {
    identity(parent) == (child.span_context.trace_id(), child.parent_span_id)
}

/// Removes what does not count in a picture: outer empty lines, trailing spaces, the indentation all lines share.
fn unindented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let shared = lines.iter().filter(|line| !line.is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    let lines: Vec<&str> = lines.iter().map(|line| line.get(shared..).unwrap_or("")).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

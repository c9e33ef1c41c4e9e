//! Who is whose child.

use std::collections::HashMap;

use opentelemetry::trace::SpanId;

use crate::span::Span;

/// Deeper spans are drawn as if they were this deep: no terminal is wider, and the lines of each level are text.
const DEEPEST: usize = 64;

/// The spans of a trace as a tree.
#[derive(Debug)]
pub(crate) struct Family {
    /// The index of each span's parent, where that is among them.
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
}

/// Where a span stands in the tree.
#[derive(Debug)]
pub(crate) struct Place {
    /// The index of the span.
    pub(crate) span: usize,
    /// The lines and corners to the left of its name.
    pub(crate) branch: String,
    /// The lines to the left of what stands below its name.
    pub(crate) below: String,
}

/// A span that is still to be placed.
struct Next {
    span: usize,
    depth: usize,
    branch: String,
    indent: String,
}

impl Family {
    pub(crate) fn new(spans: &[Span]) -> Self {
        let known: HashMap<SpanId, usize> = spans.iter().enumerate().map(|(index, span)| (span.id, index)).collect();
        let parent = |span: &Span| known.get(&span.parent).copied().filter(|_| span.parent != SpanId::INVALID);
        let parents: Vec<Option<usize>> = spans.iter().map(parent).collect();
        let mut children = vec![Vec::new(); spans.len()];
        for (child, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                children[parent].push(child);
            }
        }
        Self { parents, children }
    }

    pub(crate) fn parent(&self, span: usize) -> Option<usize> {
        self.parents[span]
    }

    /// Places each span once, after its parent. Spans that are each other's parents in a circle begin with the first of them.
    pub(crate) fn places(&self, spans: &[Span]) -> Vec<Place> {
        let mut places = Vec::with_capacity(spans.len());
        let mut placed = vec![false; spans.len()];
        let roots = (0..spans.len()).filter(|&span| self.parents[span].is_none());
        for root in roots.chain(0..spans.len()) {
            if placed[root] {
                continue;
            }
            let detached = spans[root].parent != SpanId::INVALID;
            let branch = if detached { "┄ " } else { "" };
            self.place(
                Next { span: root, depth: 0, branch: branch.to_owned(), indent: String::new() },
                &mut placed,
                &mut places,
            );
        }
        places
    }

    /// Places a span and all below it. Without recursion: a stranger says how deep it is.
    fn place(&self, first: Next, placed: &mut [bool], places: &mut Vec<Place>) {
        let mut waiting = vec![first];
        while let Some(Next { span, depth, branch, indent }) = waiting.pop() {
            placed[span] = true;
            // In a circle, the first one is a child, too.
            let children: Vec<usize> = self.children[span].iter().copied().filter(|&child| !placed[child]).collect();
            let below = format!("{indent}{}", if children.is_empty() { "  " } else { "│ " });
            places.push(Place { span, branch, below });
            for (at, &child) in children.iter().enumerate().rev() {
                let (corner, line) = if at + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let deeper = if depth < DEEPEST { format!("{indent}{line}") } else { indent.clone() };
                waiting.push(Next {
                    span: child,
                    depth: depth + 1,
                    branch: format!("{indent}{corner}"),
                    indent: deeper,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::trace::{SpanId, TraceId};

    use super::{DEEPEST, Family};
    use crate::span::Span;

    fn tree(spans: &[(u64, u64)]) -> Vec<String> {
        let now = SystemTime::UNIX_EPOCH;
        let spans: Vec<Span> = spans
            .iter()
            .map(|&(id, parent)| {
                let mut span = Span::new(TraceId::from(1), SpanId::from(id), "shop", id.to_string(), now, now);
                span.parent = SpanId::from(parent);
                span
            })
            .collect();
        let places = Family::new(&spans).places(&spans);
        places.iter().map(|place| format!("{}{}", place.branch, spans[place.span].name)).collect()
    }

    #[test]
    fn each_child_stands_below_its_parent() {
        assert_eq!(tree(&[(1, 0), (2, 1), (3, 2), (4, 1)]), ["1", "├─ 2", "│  └─ 3", "└─ 4"]);
    }

    #[test]
    fn a_parent_that_is_missing_is_hinted_at() {
        assert_eq!(tree(&[(2, 9), (3, 2)]), ["┄ 2", "└─ 3"]);
    }

    #[test]
    fn parents_in_a_circle_are_drawn_once() {
        assert_eq!(tree(&[(1, 1)]), ["┄ 1"]);
        assert_eq!(tree(&[(1, 3), (2, 1), (3, 2), (4, 3), (5, 0)]), ["5", "┄ 1", "└─ 2", "   └─ 3", "      └─ 4"]);
    }

    #[test]
    fn spans_with_the_same_id_are_all_drawn() {
        assert_eq!(tree(&[(1, 0), (1, 0), (2, 1), (1, 2)]), ["1", "1", "┄ 2", "└─ 1"]);
    }

    #[test]
    fn a_span_without_an_id_is_nobodys_parent() {
        assert_eq!(tree(&[(0, 0), (0, 0)]), ["0", "0"]);
    }

    #[test]
    fn a_chain_of_many_spans_needs_no_deep_stack_and_no_long_lines() {
        let chain: Vec<(u64, u64)> = (1..=100_000).map(|id| (id, id - 1)).collect();
        let tree = tree(&chain);
        assert_eq!(tree.len(), chain.len());
        let widest = tree.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= (DEEPEST + 2) * 3 + "100000".len(), "{widest}");
    }
}

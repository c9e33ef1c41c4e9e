use std::fmt;
use std::sync::Arc;

use throughline_core::broker::{Pattern, Subscription};
use throughline_core::message::{Source, System};

use super::queue::{Binding, Kind, Queue};
use crate::semconv::{SYSTEM, is_anonymous, source_name};

impl Queue {
    /// Describes what is read from, for telemetry: each binding as a pattern, and what no binding explains by the queue.
    // ATTR-R-02, ATTR-R-08 to -10.
    pub(crate) fn source(&self, system: &Arc<System>, name: &str) -> Source {
        let is_anonymous = is_anonymous(name);
        let shown_queue = if is_anonymous { "" } else { name };
        let mut patterns = Vec::new();
        for route in self.bindings.iter().flat_map(|binding| binding.routes().0) {
            let pattern = route.pattern();
            // Of a queue that nobody named, only a pattern says something that is not generated.
            if is_anonymous && (route.takes_any_key() || !pattern.is_wildcard()) {
                continue;
            }
            let shown = source_name(route.exchange(), route.shown_key(), shown_queue).into_owned();
            patterns.push(pattern.shown_as(shown));
        }
        let mut source = Source::new(Arc::clone(system));
        if is_anonymous {
            source = source.with_patterns(patterns);
            (source.destination, source.template) = (None, None);
        } else {
            patterns.push(Pattern::exact(name));
            source = source.with_patterns(patterns).with_others(name).with_destination(name);
            source.template = None;
        }
        source.anonymous = is_anonymous;
        source.temporary = self.exclusive || self.auto_delete || is_anonymous;
        source
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Classic => "queue",
            Kind::Quorum => "quorum queue",
            Kind::Stream(_) => "stream",
        };
        if self.is_generated() {
            write!(f, "a {kind} that the server names")
        } else {
            write!(f, "{kind} `{}`", self.name)
        }
    }
}

impl Binding {
    /// Names what a broker in memory cannot do.
    fn need(&self) -> Option<&'static str> {
        if !self.arguments.inner().is_empty() {
            return Some("bindings by headers");
        }
        if self.exchange.is_of_plug_in() {
            return Some("exchanges of a plug-in");
        }
        (!self.routes().1).then_some("patterns at two exchanges in a row")
    }
}

impl From<Queue> for Subscription {
    fn from(queue: Queue) -> Self {
        let bound = || queue.bindings.iter().flat_map(|binding| binding.routes().0).map(|route| route.pattern());
        let (first, bound): (_, Vec<_>) = match bound().next() {
            Some(first) if queue.is_generated() => (first, bound().skip(1).collect()),
            _ => (Pattern::exact(Arc::clone(&queue.name)), bound().collect()),
        };
        let mut subscription = bound.into_iter().fold(Self::new(SYSTEM, first), Self::with_pattern);
        if !queue.is_generated() {
            subscription = subscription.with_group(Arc::clone(&queue.name));
        }
        if let Some(policy) = queue.batch {
            subscription = subscription.with_batch(policy);
        }
        if let Some(most) = queue.chosen_deliveries() {
            subscription = subscription.with_delivery_limit(most);
        }
        if queue.acks_on_receipt || queue.is_stream() {
            subscription = subscription.without_redelivery();
        }
        if queue.is_stream() {
            subscription = subscription.with_need("reading a stream again");
        }
        for need in queue.bindings.iter().filter_map(Binding::need) {
            subscription = subscription.with_need(need);
        }
        let description = queue.to_string();
        subscription.with_description(description).with_native(queue)
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;

    use super::*;
    use crate::{Exchange, StreamOffset};

    fn patterns(queue: Queue) -> Vec<(Option<String>, String)> {
        let subscription = Subscription::from(queue);
        let own = |pattern: &Pattern| (pattern.namespace().map(str::to_owned), pattern.as_str().to_owned());
        subscription.patterns().iter().map(own).collect()
    }

    fn of(exchange: &str, key: &str) -> (Option<String>, String) {
        (Some(exchange.to_owned()), key.to_owned())
    }

    #[test]
    fn a_queue_receives_by_its_name_and_by_each_binding() {
        let queue = Queue::new("stock").bind(Exchange::topic("orders"), "placed.*").bind(Exchange::fanout("all"), "k");
        assert_eq!(patterns(queue), [(None, "stock".to_owned()), of("orders", "placed.*"), of("all", "#")]);
        let generated = Queue::generated().bind(Exchange::direct("orders"), "a").bind(Exchange::named("b"), "c.#");
        assert_eq!(patterns(generated.clone()), [of("orders", "a"), of("b", "c.#")]);
        assert_eq!(Subscription::from(generated).group(), None);
        assert_eq!(Subscription::from(Queue::new("stock")).group(), Some("stock"));
    }

    #[test]
    fn a_queue_receives_from_exchanges_before_its_own() {
        let eu = Exchange::fanout("eu").bound_to(Exchange::topic("orders"), "*.eu");
        assert_eq!(
            patterns(Queue::new("q").bind(eu.clone(), "")).get(1..),
            Some(&[of("orders", "*.eu"), of("eu", "#")][..])
        );
        let narrowed = Exchange::topic("placed").bound_to(Exchange::fanout("all"), "");
        let both = patterns(Queue::new("q").bind(narrowed, "placed.#"));
        assert_eq!(both.get(1..), Some(&[of("all", "placed.#"), of("placed", "placed.#")][..]));
        let crossed = Exchange::topic("placed").bound_to(Exchange::topic("orders"), "*.eu");
        let crossed = Subscription::from(Queue::new("q").bind(crossed, "placed.*"));
        assert_eq!(crossed.needs(), ["patterns at two exchanges in a row"]);
        assert!(Subscription::from(Queue::new("q").bind(eu, "")).needs().is_empty());
    }

    #[test]
    fn what_memory_cannot_do_is_named() {
        let needs = |queue: Queue| Subscription::from(queue).needs().to_vec();
        let header = [("tenant", AMQPValue::Boolean(true))];
        assert_eq!(needs(Queue::new("q").bind_headers(Exchange::headers("h"), header)), ["bindings by headers"]);
        assert_eq!(needs(Queue::new("q").bind(Exchange::of_kind("x-hash", "h"), "1")), ["exchanges of a plug-in"]);
        assert_eq!(needs(Queue::new("q").stream(StreamOffset::First)).len(), 1);
        assert!(needs(Queue::new("q").quorum().bind(Exchange::direct("d"), "k")).is_empty());
    }

    #[test]
    fn names_show_each_binding_and_never_a_generated_queue() {
        let system = Arc::new(crate::semconv::system(None, None));
        let shown = |queue: &Queue, name: &str| -> Vec<String> {
            let source = queue.source(&system, name);
            source.patterns.iter().flat_map(|all| all.iter()).map(|pattern| pattern.shown().to_owned()).collect()
        };
        let eu = Exchange::fanout("eu").bound_to(Exchange::topic("orders"), "*.eu");
        let queue = Queue::new("q").bind(Exchange::topic("t"), "a.{id}").bind(eu, "");
        assert_eq!(shown(&queue, "q"), ["t:a.{id}:q", "orders:*.eu:q", "eu:q", "q"], "ATTR-R-10");
        let generated = Queue::generated().bind(Exchange::topic("t"), "a.*").bind(Exchange::direct("d"), "k");
        assert_eq!(shown(&generated, "amq.gen-x"), ["t:a.*"], "ATTR-R-08");
    }
}

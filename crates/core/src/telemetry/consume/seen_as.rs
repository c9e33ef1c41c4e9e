use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;

use crate::message::{OperationType, Pattern, Settlement, Source};
use crate::telemetry::attributes::Place;
use crate::telemetry::engine::{Engine, with_settlement};
use crate::telemetry::prepared::Prepared;

/// How the messages of a subscription stand in telemetry: all alike, or each as the pattern it matches.
// SPAN-14, SPAN-20.
pub(super) struct Places {
    /// That of all messages, and of what stands for none.
    common: SeenAs,
    /// The only name that messages are known to have.
    only: Option<Arc<str>>,
    /// That of each pattern, where there are several.
    of_patterns: Vec<(Pattern, SeenAs)>,
    /// Whether what a name is within tells messages apart.
    has_namespaces: bool,
    /// That of a message that nothing of this stands for, and of different ones: the operation alone.
    // SPAN-17, SPAN-18.
    others: SeenAs,
}

impl Places {
    pub(super) fn new(engine: &Arc<Engine>, source: &Arc<Source>) -> Self {
        let seen_as = |destination: Option<Arc<str>>, template, is_any| {
            SeenAs::new(Arc::clone(engine), Arc::clone(source), destination, template, is_any)
        };
        let of_pattern = |pattern: &Pattern| {
            let text = Some(Arc::from(pattern.shown()));
            let (destination, template) = if pattern.is_wildcard() { (None, text) } else { (text, None) };
            (pattern.clone(), seen_as(destination, template, false))
        };
        let is_described = source.others.is_none() && (source.template.is_some() || source.destination.is_some());
        let patterns = source.patterns.as_deref().filter(|_| !is_described).unwrap_or_default();
        let is_any = source.patterns.is_some() && !is_described && source.others.is_none();
        Self {
            common: seen_as(source.destination.clone(), source.template.clone(), is_any),
            only: source.destination.clone().filter(|_| source.patterns.is_some() && source.template.is_none()),
            of_patterns: patterns.iter().map(of_pattern).collect(),
            has_namespaces: source.others.is_some() || patterns.iter().any(|pattern| pattern.namespace().is_some()),
            others: seen_as(None, source.others.clone(), source.others.is_none()),
        }
    }

    pub(super) const fn common(&self) -> &SeenAs {
        &self.common
    }

    pub(super) const fn has_namespaces(&self) -> bool {
        self.has_namespaces
    }

    /// How a message with that destination stands, where `name` is shown for it: the pattern it matches decides, and the name stands
    /// where the destination would.
    pub(super) fn of(&self, namespace: Option<&str>, destination: &str, name: &str) -> &SeenAs {
        let seen_as = self.by_pattern(namespace, destination, name);
        if name == destination { seen_as } else { seen_as.named(name).unwrap_or(&self.others) }
    }

    fn by_pattern(&self, namespace: Option<&str>, destination: &str, name: &str) -> &SeenAs {
        if self.of_patterns.is_empty() {
            let is_other = self.only.as_deref().is_some_and(|only| only != destination && only != name);
            return if is_other { &self.others } else { &self.common };
        }
        let found = self.of_patterns.iter().find(|(pattern, _)| pattern.takes_within(namespace, destination));
        found.map_or(&self.others, |(_, seen_as)| seen_as)
    }

    /// How several messages stand: as each of them, or, where they differ, as others.
    pub(super) fn of_all<'a>(&'a self, mut each: impl Iterator<Item = &'a SeenAs>) -> &'a SeenAs {
        let Some(first) = each.next() else { return &self.common };
        if each.all(|other| std::ptr::eq(other, first)) { first } else { &self.others }
    }
}

/// What is prepared for messages that stand alike.
pub(super) struct SeenAs {
    engine: Arc<Engine>,
    source: Arc<Source>,
    destination: Option<Arc<str>>,
    template: Option<Arc<str>>,
    /// Whether the names are any, so that none may tell messages apart.
    is_any: bool,
    process: OnceLock<Arc<Prepared>>,
    receive: OnceLock<Arc<Prepared>>,
    /// One for each settlement.
    settle: [OnceLock<Arc<Prepared>>; 3],
    /// The attributes that count what became of messages, in the order of `SETTLEMENTS`.
    settled: [OnceLock<Vec<KeyValue>>; SETTLEMENTS.len()],
    /// That of messages for which the adapter shows another name, and so on to the next name. Filled once and never changed, so that
    /// reading it takes no lock.
    next: OnceLock<Box<SeenAs>>,
}

/// How many names one destination may have. Where there are more, they tell no operations apart.
const NAMES: usize = 64;

/// What becomes of messages, in the metrics.
const SETTLEMENTS: [&str; 4] = ["ack", "dead_letter", "reject", "retry"];

impl SeenAs {
    fn new(
        engine: Arc<Engine>,
        source: Arc<Source>,
        destination: Option<Arc<str>>,
        template: Option<Arc<str>>,
        is_any: bool,
    ) -> Self {
        let (process, receive) = (OnceLock::new(), OnceLock::new());
        let (settle, settled) = Default::default();
        let next = OnceLock::new();
        Self { engine, source, destination, template, is_any, process, receive, settle, settled, next }
    }

    /// The same under another name, where a name is shown; `None` where there are too many of them.
    fn named(&self, name: &str) -> Option<&Self> {
        let is_shown = self.template.is_none() && self.place(self.destination.as_deref()).low_cardinality().is_some();
        if !is_shown || self.destination.as_deref() == Some(name) {
            return Some(self);
        }
        let mut last = self;
        for _ in 0..NAMES {
            let next = last.next.get_or_init(|| Box::new(self.renamed(name)));
            if next.destination.as_deref() == Some(name) {
                return Some(next);
            }
            last = next;
        }
        None
    }

    fn renamed(&self, name: &str) -> Self {
        let (engine, source) = (Arc::clone(&self.engine), Arc::clone(&self.source));
        Self::new(engine, source, Some(name.into()), None, self.is_any)
    }

    pub(super) fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// The place of messages that all have this name; `None` where they differ.
    pub(super) fn place<'a>(&'a self, name: Option<&'a str>) -> Place<'a> {
        let Source { temporary, anonymous, .. } = *self.source;
        Place { name, template: self.template(), temporary, anonymous, is_any: self.is_any }
    }

    /// The place of what stands for no message.
    pub(super) fn of_no_message(&self) -> Place<'_> {
        self.place(self.destination.as_deref().filter(|_| self.template.is_none()))
    }

    pub(super) fn process(&self) -> &Arc<Prepared> {
        self.process.get_or_init(|| {
            let verb = self.source.system.operations().process;
            let place = self.place(self.destination.as_deref());
            Arc::new(Prepared::for_source(&self.engine, &self.source, OperationType::Process, verb, &place))
        })
    }

    pub(super) fn receive(&self) -> &Arc<Prepared> {
        self.receive.get_or_init(|| self.client(OperationType::Receive, self.source.system.operations().receive))
    }

    /// What is prepared for one of the three settlements; `None` where the system does not settle so.
    pub(super) fn settle(&self, settlement: &Settlement) -> Option<&Arc<Prepared>> {
        let operations = self.source.system.operations();
        let [ack, reject, retry] = &self.settle;
        let (slot, verb) = match settlement {
            Settlement::Ack => (ack, operations.ack?),
            Settlement::Reject { .. } => (reject, operations.reject?),
            Settlement::Retry { .. } => (retry, operations.retry?),
        };
        Some(slot.get_or_init(|| self.client(OperationType::Settle, verb)))
    }

    fn client(&self, operation: OperationType, verb: &'static str) -> Arc<Prepared> {
        Arc::new(Prepared::for_source(&self.engine, &self.source, operation, verb, &self.of_no_message()))
    }

    /// Counts what became of a message; see `SETTLED_MESSAGES`.
    pub(super) fn count_settlement(&self, settlement: &'static str) {
        let counts = || with_settlement(&self.process().counts, settlement);
        let slot = SETTLEMENTS.iter().position(|known| *known == settlement).and_then(|index| self.settled.get(index));
        match slot {
            Some(slot) => self.engine.metrics.settled(slot.get_or_init(counts)),
            None => self.engine.metrics.settled(&counts()),
        }
    }
}

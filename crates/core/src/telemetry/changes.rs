use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::baggage::{Baggage, BaggageExt, KeyValueMetadata};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, Key, KeyValue};

use super::choices::BaggagePolicy;

/// The changes a handler makes to its baggage. They live in the context, so everything that runs under it sees them, and are
/// applied to the context's baggage when a message leaves.
#[derive(Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<ChangeList>>);

impl Changes {
    /// A poisoned lock only means that another thread panicked between two complete changes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ChangeList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Default)]
pub(crate) struct ChangeList {
    cleared: bool,
    entries: BTreeMap<String, Option<String>>,
}

impl ChangeList {
    pub(crate) fn set(&mut self, key: String, value: String) {
        self.entries.insert(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.insert(key.to_owned(), None);
    }

    pub(crate) fn clear(&mut self) {
        self.cleared = true;
        self.entries.clear();
    }

    fn is_empty(&self) -> bool {
        !self.cleared && self.entries.is_empty()
    }

    fn apply(&self, base: &Baggage) -> Baggage {
        let mut result = Baggage::new();
        if !self.cleared {
            for (key, (value, metadata)) in base {
                if !self.entries.contains_key(key.as_str()) {
                    result.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
                }
            }
        }
        for (key, value) in &self.entries {
            if let Some(value) = value {
                result.insert(key.clone(), value.clone());
            }
        }
        result
    }
}

/// The baggage a message published under `context` carries, where it differs from that of the context.
pub(crate) fn changed_baggage(context: &Context) -> Option<Baggage> {
    let changes = context.get::<Changes>()?.lock();
    (!changes.is_empty()).then(|| changes.apply(context.baggage()))
}

/// Whether a message that leaves under this context has nothing to carry: no span and no baggage.
pub(crate) fn carries_nothing(context: &Context) -> bool {
    !context.has_active_span() && context.get::<Changes>().is_none() && context.baggage().is_empty()
}

/// The context to inject: with the changed baggage, and only the entries that may leave.
pub(crate) fn outgoing_context<'a>(context: &'a Context, policy: &BaggagePolicy) -> Cow<'a, Context> {
    match (changed_baggage(context), policy) {
        (None, BaggagePolicy::All) => Cow::Borrowed(context),
        (Some(baggage), BaggagePolicy::All) => Cow::Owned(with_baggage(context, &baggage)),
        (Some(baggage), _) => Cow::Owned(with_baggage(context, &admitted(&baggage, policy))),
        (None, _) => Cow::Owned(with_baggage(context, &admitted(context.baggage(), policy))),
    }
}

/// The entries of `baggage` that the policy admits.
pub(crate) fn admitted(baggage: &Baggage, policy: &BaggagePolicy) -> Baggage {
    let mut result = Baggage::new();
    for (key, (value, metadata)) in baggage.iter().filter(|(key, _)| policy.admits(key.as_str())) {
        result.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
    }
    result
}

/// Replaces the baggage of a context.
// TRAP-15.
pub(crate) fn with_baggage(context: &Context, baggage: &Baggage) -> Context {
    let entries = baggage.iter();
    context.with_baggage(
        entries.map(|(key, (value, metadata))| KeyValueMetadata::new(key.clone(), value.clone(), metadata.clone())),
    )
}

/// Attributes made of the listed baggage entries.
// BAGG-13.
pub(crate) fn baggage_attributes(baggage: &Baggage, listed: &[(String, Key)], set: &mut dyn FnMut(KeyValue)) {
    for (key, attribute) in listed {
        if let Some(value) = baggage.get(key) {
            set(KeyValue::new(attribute.clone(), value.clone()));
        }
    }
}

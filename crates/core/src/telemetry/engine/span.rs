use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Span, SpanContext, Status};
use opentelemetry::{Key, KeyValue};

use super::settings::Settings;
use crate::guard::Foreign;
use crate::telemetry::attributes::once_each;

/// A span of the engine around that of the tracer. It exports each attribute once, and no panic of a processor or of a foreign tracer
/// gets out of it, so the lock around it is never poisoned.
///
/// The SDK appends what is set, whether or not the key is there. Hence what is set after the start is collected here and written
/// when the span ends: the last value of a key wins, and a key the span started with keeps its value. The engine sets its own last.
// GEN-06.
pub(super) struct EngineSpan<S: Span> {
    /// Taken out when it is dropped, which may panic as well.
    inner: Option<S>,
    settings: Arc<Settings>,
    keys: Keys,
    changes: Vec<KeyValue>,
    has_ended: bool,
}

static NO_CONTEXT: SpanContext = SpanContext::NONE;

impl<S: Span> EngineSpan<S> {
    /// `changes` are attributes that are to give way to those of the engine's that come at the end.
    pub(super) fn new(inner: S, settings: &Arc<Settings>, keys: Keys, changes: Vec<KeyValue>) -> Self {
        Self { inner: Some(inner), settings: Arc::clone(settings), keys, changes, has_ended: false }
    }

    /// Sets an attribute the span starts with, unless it has one of that key.
    pub(super) fn set_first(&mut self, attribute: KeyValue) {
        if !self.keys.contains(&attribute.key) {
            self.keys.push(attribute.key.clone());
            self.change(|span| span.set_attribute(attribute));
        }
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut S) -> R) -> Option<R> {
        let inner = self.inner.as_mut().filter(|_| !self.has_ended)?;
        self.settings.guard.run(Foreign::SpanChange, || change(inner))
    }

    fn end_inner(&mut self, end: impl FnOnce(&mut S)) {
        if self.has_ended {
            return;
        }
        let mut changes = std::mem::take(&mut self.changes);
        self.settings.limit(&mut changes);
        if !changes.is_empty() {
            self.change(|span| span.set_attributes(changes));
        }
        self.has_ended = true;
        if let Some(inner) = &mut self.inner {
            self.settings.guard.run(Foreign::SpanEnd, || end(inner));
        }
    }
}

impl<S: Span> Span for EngineSpan<S> {
    fn add_event_with_timestamp<T>(&mut self, name: T, timestamp: SystemTime, mut attributes: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
        once_each(&mut attributes, &[]);
        self.change(|span| span.add_event_with_timestamp(name, timestamp, attributes));
    }

    fn span_context(&self) -> &SpanContext {
        let context = || self.inner.as_ref().map(Span::span_context);
        self.settings.guard.run(Foreign::SpanChange, context).flatten().unwrap_or(&NO_CONTEXT)
    }

    fn is_recording(&self) -> bool {
        let Some(inner) = self.inner.as_ref().filter(|_| !self.has_ended) else { return false };
        self.settings.guard.run(Foreign::SpanChange, || inner.is_recording()).unwrap_or_default()
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        if self.has_ended || self.keys.contains(&attribute.key) {
            return;
        }
        match self.changes.iter_mut().find(|change| change.key == attribute.key) {
            Some(change) => *change = attribute,
            None => self.changes.push(attribute),
        }
    }

    fn set_status(&mut self, status: Status) {
        self.change(|span| span.set_status(status));
    }

    fn update_name<T>(&mut self, new_name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        self.change(|span| span.update_name(new_name));
    }

    fn add_link(&mut self, span_context: SpanContext, mut attributes: Vec<KeyValue>) {
        once_each(&mut attributes, &[]);
        self.change(|span| span.add_link(span_context, attributes));
    }

    fn end(&mut self) {
        self.end_inner(Span::end);
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        self.end_inner(|span| span.end_with_timestamp(timestamp));
    }
}

impl<S: Span> Drop for EngineSpan<S> {
    fn drop(&mut self) {
        self.end();
        let inner = self.inner.take();
        self.settings.guard.run(Foreign::SpanEnd, || drop(inner));
    }
}

/// The keys of the attributes a span started with. What is the same for all spans of an operation is shared, the others have room here:
/// to know them allocates nothing in the usual case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    shared: Option<Arc<[Key]>>,
    own: [Option<Key>; ROOM],
    more: Vec<Key>,
}

/// Destination, ids, size, and what an adapter adds: the partition, the offset, the key.
const ROOM: usize = 8;

impl Keys {
    pub(crate) fn of(attributes: &[KeyValue]) -> Self {
        Self::sharing(None, attributes)
    }

    pub(crate) fn sharing(shared: Option<Arc<[Key]>>, further: &[KeyValue]) -> Self {
        let mut keys = Self { shared, ..Self::default() };
        further.iter().for_each(|attribute| keys.push(attribute.key.clone()));
        keys
    }

    fn push(&mut self, key: Key) {
        match self.own.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(key),
            None => self.more.push(key),
        }
    }

    fn contains(&self, key: &Key) -> bool {
        let mut shared = self.shared.iter().flat_map(|keys| keys.iter());
        shared.any(|known| known == key) || self.own.iter().flatten().chain(&self.more).any(|known| known == key)
    }
}

//! Everything that is logged on this thread, on every level.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Listens to the current thread until it is dropped. A runtime of one thread runs everything there.
pub(super) struct Listener {
    log: Log,
    _guard: DefaultGuard,
    _second: Dispatch,
}

impl Listener {
    /// Begins to listen; targets that begin with one of `others` are passed over.
    pub(super) fn begin(others: &'static [&'static str]) -> Self {
        let log = Log { text: Arc::default(), others };
        // With one dispatcher alone, a thread of another test may switch an event off for all.
        let _second = Dispatch::new(log.clone());
        Self { _guard: tracing::subscriber::set_default(log.clone()), log, _second }
    }

    /// Returns what was logged since the last call, one line for each event and span.
    pub(super) fn take(&self) -> String {
        std::mem::take(&mut *self.log.text.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone)]
struct Log {
    text: Arc<Mutex<String>>,
    others: &'static [&'static str],
}

impl Log {
    fn begin_line(&self, metadata: &Metadata<'_>) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = write!(text, "\n{} {} {}", metadata.level(), metadata.target(), metadata.name());
    }
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = write!(text, " {field}={value:?}");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !self.others.iter().any(|other| metadata.target().starts_with(other))
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.begin_line(span.metadata());
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.begin_line(event.metadata());
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_not_of_others_is_heard() {
        let listener = Listener::begin(&["others"]);
        tracing::trace!(what = "quiet", "first");
        tracing::error!(target: "others::deep", "second");
        let _span = tracing::trace_span!("third", key = "value");
        let heard = listener.take();
        assert!(["first", "quiet", "third", "value"].iter().all(|word| heard.contains(word)), "{heard}");
        assert!(!heard.contains("second"), "{heard}");
        assert_eq!(listener.take(), "");
    }
}

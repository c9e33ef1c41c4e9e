use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::error;

/// The kinds of code that are not ours and run where a panic would take a message along. The text says which one panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Foreign {
    Answer,
    Attributes,
    Destination,
    ErrorText,
    ErrorType,
    Extract,
    Filter,
    Inject,
    Logger,
    Metrics,
    Native,
    Propagator,
    Publish,
    RetryPredicate,
    SpanChange,
    SpanEnd,
    SpanName,
    SpanStart,
}

impl Foreign {
    const fn name(self) -> &'static str {
        match self {
            Self::Answer => "the attributes of a broker's answer",
            Self::Attributes => "the `attributes` hook",
            Self::Destination => "the name of a message's destination that the adapter gives",
            Self::ErrorText => "the `Display` of an error",
            Self::ErrorType => "the `error_type` hook",
            Self::Extract => "the reading of trace context and baggage from headers",
            Self::Filter => "the `filter` hook",
            Self::Inject => "the writing of trace context and baggage into headers",
            Self::Logger => "the logger of error events (a log processor or exporter)",
            Self::Metrics => "an instrument of the meter provider",
            Self::Native => "the attributes of a message that the adapter adds",
            Self::Propagator => "a propagator of the user's own",
            Self::Publish => "what the adapter says about a publish for telemetry",
            Self::RetryPredicate => "the predicate of a `RetryPolicy`",
            Self::SpanChange => "a change of a span",
            Self::SpanEnd => "the end of a span (a span processor or exporter)",
            Self::SpanName => "the `span_name` hook",
            Self::SpanStart => "the start of a span (the sampler, the id generator or a span processor)",
        }
    }
}

/// Runs code that is not ours where it could take a message along: a panic goes no further and is reported once for each kind.
///
/// Clones share what was reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    reported: Arc<AtomicU32>,
}

impl Guard {
    /// Returns what the code returns, or `None` when it panicked.
    #[inline]
    pub(crate) fn run<T>(&self, kind: Foreign, code: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(code)) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.report(kind, panic);
                None
            }
        }
    }

    /// What the panic says is not repeated: the text is the user's and may hold private data. The panic hook has printed it.
    #[cold]
    fn report(&self, kind: Foreign, panic: Box<dyn Any + Send>) {
        discard(panic);
        let bit = 1 << kind as u32;
        if self.reported.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            // A subscriber of the user's own may panic, too.
            let _ = catch_unwind(|| {
                error!(
                    code = kind.name(),
                    "user code that the framework calls panicked; its result is left out, messages are handled as if it were not there, \
                     and further panics of it are not reported: correct it, its text and place are in the output of the panic hook"
                );
            })
            .map_err(discard);
        }
    }
}

/// Writes a text that is the user's code, as that of an error, where a panic would take a message along.
pub(crate) fn write_text(
    f: &mut fmt::Formatter<'_>,
    write: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    catch_unwind(AssertUnwindSafe(|| write(f))).unwrap_or_else(|panic| {
        discard(panic);
        f.write_str("the error has no text: its `Display` panicked")
    })
}

/// Drops what a panic carries. That may panic in turn; what comes of that is forgotten.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_goes_no_further() {
        let guard = Guard::default();
        assert_eq!(guard.run(Foreign::Filter, || 42), Some(42));
        assert_eq!(guard.run(Foreign::Filter, || -> u8 { panic!("no") }), None);
        assert_eq!(guard.run(Foreign::Filter, || 42), Some(42));
    }

    #[test]
    fn a_panic_whose_payload_panics_goes_no_further() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    std::panic::panic_any(Self);
                }
            }
        }
        assert_eq!(Guard::default().run(Foreign::Filter, || -> u8 { std::panic::panic_any(Bomb) }), None);
    }
}

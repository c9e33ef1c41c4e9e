use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry::global::{self, BoxedSpan, BoxedTracer};
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{SpanBuilder, Tracer, TracerProvider as _};

use super::tracer::StartSpan;
use crate::guard::{Foreign, Guard};
use crate::telemetry::semconv::instrumentation_scope;

/// How often it is looked for a provider each time it is needed.
const FIRST_LOOKS: u32 = 4_096;

/// After them the clock is read every so often, and it is looked when some time has passed: a program without a provider need not pay
/// for looking, which allocates.
const LATER_LOOKS: u32 = 64;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// What comes from a global provider, which may be set later than this is made: it is looked for until there is one, and then kept.
pub(super) struct UntilSet<T> {
    found: OnceLock<T>,
    looks: AtomicU32,
    /// When it was looked last, once there were many looks.
    last: Mutex<Option<Instant>>,
}

impl<T> UntilSet<T> {
    pub(super) const fn new() -> Self {
        Self { found: OnceLock::new(), looks: AtomicU32::new(0), last: Mutex::new(None) }
    }

    pub(super) fn given(value: T) -> Self {
        Self { found: OnceLock::from(value), looks: AtomicU32::new(0), last: Mutex::new(None) }
    }

    /// Returns it where it was found.
    pub(super) fn found(&self) -> Option<&T> {
        self.found.get()
    }

    /// Returns it, looking for it where it was not found yet and it is time to.
    #[inline]
    pub(super) fn get(&self, look: impl FnOnce() -> Option<T>) -> Option<&T> {
        self.found.get().or_else(|| self.look(look))
    }

    #[cold]
    fn look(&self, look: impl FnOnce() -> Option<T>) -> Option<&T> {
        let looks = self.looks.load(Ordering::Relaxed);
        // One more or less does not matter.
        let next = if looks < FIRST_LOOKS + LATER_LOOKS { looks + 1 } else { FIRST_LOOKS + 1 };
        self.looks.store(next, Ordering::Relaxed);
        if looks >= FIRST_LOOKS && !(looks.is_multiple_of(LATER_LOOKS) && self.is_time()) {
            return None;
        }
        let found = look()?;
        Some(self.found.get_or_init(|| found))
    }

    fn is_time(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = last.is_none_or(|last| last.elapsed() >= BETWEEN_LOOKS);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }
}

/// The tracer of the global provider.
pub(super) struct GlobalTracer(UntilSet<BoxedTracer>);

impl GlobalTracer {
    pub(super) const fn new() -> Self {
        Self(UntilSet::new())
    }

    /// Tells whether there is a provider that makes spans.
    pub(super) fn is_there(&self, guard: &Guard) -> bool {
        let look = || {
            let look = || {
                let tracer = global::tracer_provider().tracer_with_scope(instrumentation_scope());
                (!tracer.is_noop()).then_some(tracer)
            };
            guard.run(Foreign::SpanStart, look).flatten()
        };
        self.0.get(look).is_some()
    }
}

impl Tracer for GlobalTracer {
    type Span = BoxedSpan;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Self::Span {
        match self.0.found() {
            Some(tracer) => tracer.build_with_context(builder, parent),
            // Nobody asks before one is there.
            None => BoxedTracer::new(Box::new(NoopTracer::new())).build_with_context(builder, parent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_is_found_and_kept() {
        let late = UntilSet::new();
        assert_eq!(late.get(|| None::<u8>), None);
        assert_eq!(late.get(|| Some(1)), Some(&1));
        assert_eq!(late.get(|| Some(2)), Some(&1));
    }

    #[test]
    fn after_many_looks_there_are_few_in_a_second() {
        let (late, mut looks) = (UntilSet::<u8>::new(), 0);
        for _ in 0..FIRST_LOOKS + 10 * LATER_LOOKS {
            late.get(|| {
                looks += 1;
                None
            });
        }
        assert!((FIRST_LOOKS..FIRST_LOOKS + 10).contains(&looks), "{looks}");
        *late.last.lock().unwrap() = Instant::now().checked_sub(BETWEEN_LOOKS);
        let found = (0..LATER_LOOKS).any(|_| late.get(|| Some(1)).is_some());
        assert!(found, "one that is set late");
    }
}

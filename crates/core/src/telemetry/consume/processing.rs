use std::any::Any;
use std::borrow::Cow;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};

use super::output::ProcessOutput;
use crate::message::Failure;
use crate::telemetry::current::{CurrentBaggage, CurrentSpan, Scope, ScopeState};
use crate::telemetry::engine::{Clock, Engine, ErrorReport};
use crate::telemetry::operation::Operation;
use crate::telemetry::prepared::Prepared;
use crate::telemetry::reply_address::has_reply_address;
use crate::telemetry::run_in::run_in;

/// The processing of a message or a batch that is under way. Dropped without an end, it is recorded as cancelled.
///
/// # Examples
///
/// ```
/// # use std::{collections::HashMap, sync::Arc};
/// # use throughline_core::message::{Operations, Source, System};
/// # use throughline_core::telemetry::{Incoming, Instrumentation};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
/// # let consumer = Instrumentation::from_globals().consumer(source);
/// # let headers: HashMap<String, String> = HashMap::new();
/// let handling = async { "42".parse::<u64>() }; // its error would be the span's
/// let answer = consumer.process(&Incoming::new("orders", &headers)).run(handling).await;
/// assert_eq!(answer, Ok(42));
/// # }
/// ```
#[must_use = "dropped at once, the processing is recorded as cancelled"]
pub struct Processing {
    /// What is current while the handler runs.
    context: Context,
    /// Those of the messages of a batch.
    members: Vec<Scope>,
    /// The scope, once it was asked for.
    scope: OnceLock<Scope>,
    engine: Arc<Engine>,
    /// Without an SDK there is nothing to record.
    operation: Option<(Operation, InFlight)>,
}

/// A message or a batch that counts as in flight until this is dropped.
pub(super) struct InFlight(Option<Arc<Prepared>>);

impl InFlight {
    pub(super) fn new(prepared: &Arc<Prepared>) -> Self {
        let is_counted = prepared.engine.metrics.in_flight(1, &prepared.counts);
        Self(is_counted.then(|| Arc::clone(prepared)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(prepared) = &self.0 {
            prepared.engine.metrics.in_flight(-1, &prepared.counts);
        }
    }
}

impl Processing {
    pub(super) const fn new(
        context: Context,
        members: Vec<Scope>,
        engine: Arc<Engine>,
        operation: Option<(Operation, InFlight)>,
    ) -> Self {
        Self { context, members, scope: OnceLock::new(), engine, operation }
    }

    /// Returns the scope in which the handler is to run.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        self.make_scope().open()
    }

    /// The scope, brought as far as this state at least; `None` where it is absent and may be.
    pub(crate) fn scope_at(&self, state: ScopeState) -> Option<&Scope> {
        match state {
            ScopeState::Absent => self.scope.get(),
            ScopeState::Closed => Some(self.make_scope()),
            ScopeState::Open => Some(self.make_scope().open()),
        }
    }

    fn make_scope(&self) -> &Scope {
        let made = || Scope::new(self.context.clone(), Some(Arc::clone(&self.engine)), self.members.clone());
        self.scope.get_or_init(made)
    }

    /// The scopes of the messages of a batch.
    pub(crate) fn members(&self) -> &[Scope] {
        &self.members
    }

    /// Whether there is anything to be made current: a span, a scope, or what the headers said.
    pub(crate) fn surrounds(&self) -> bool {
        self.scope.get().is_some()
            || self.context.has_active_span()
            || !self.context.baggage().is_empty()
            || has_reply_address(&self.context)
    }

    /// The context in which the handler is to run.
    pub(crate) fn context(&self) -> &Context {
        self.scope.get().map_or(&self.context, Scope::context)
    }

    /// Ends the processing as successful: the status stays unset.
    pub fn succeed(self) {
        self.finish(None, Vec::new());
    }

    /// Ends the processing as failed.
    pub fn fail(self, failure: &Failure) {
        self.finish(Some(failure), Vec::new());
    }

    /// Ends the processing and returns a clock that starts at its end.
    pub(crate) fn finish(self, failure: Option<&Failure>, late: Vec<KeyValue>) -> Clock {
        let Some((operation, _in_flight)) = self.operation else { return Clock::default() };
        let report = failure.map(|failure| ErrorReport::of_failure(failure, &operation.engine().settings));
        operation.finish(late, report.as_ref())
    }

    /// Runs a future in the scope and ends the processing with it. An error that it returns makes the processing a failed one, with the
    /// error's type as `error.type`. A panic is recorded and goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{collections::HashMap, sync::Arc};
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::{Incoming, Instrumentation};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// let result = consumer.process(&Incoming::new("orders", &headers)).run(async { "x".parse::<u8>() }).await;
    /// assert!(result.is_err()); // and the span is a failed one
    /// # }
    /// ```
    pub async fn run<F>(self, future: F) -> F::Output
    where
        F: Future<Output: ProcessOutput>,
    {
        let output = match self.guarded(future).await {
            Ok(output) => output,
            Err(panic) => self.resume(panic),
        };
        let failure = output.error().map(|(error_type, error)| {
            let text = self.engine.settings.text_of(error).unwrap_or_else(|| NO_TEXT.to_owned());
            Failure::new(error_type, text)
        });
        match failure {
            None => self.succeed(),
            Some(failure) => self.fail(&failure),
        }
        output
    }

    async fn guarded<F: Future>(&self, future: F) -> Result<F::Output, Panic> {
        let context = self.surrounds().then(|| self.context().clone());
        run_in(context, pin!(AssertUnwindSafe(future).catch_unwind())).await
    }

    fn resume(self, panic: Panic) -> ! {
        if let Some((operation, _in_flight)) = self.operation {
            operation.finish(Vec::new(), Some(&ErrorReport::named("panic")));
        }
        resume_unwind(panic)
    }
}

/// Of an error whose own text cannot be made.
const NO_TEXT: &str = "the error has no text: its `Display` panicked";

type Panic = Box<dyn Any + Send>;

impl CurrentSpan for Processing {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(Self::scope(self))
    }
}

impl CurrentBaggage for Processing {
    fn baggage_scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(Self::scope(self))
    }
}

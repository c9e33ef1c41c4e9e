use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry::metrics::Meter;
use opentelemetry::{Context, KeyValue};

use super::incoming::Incoming;
use super::processing::Processing;
use super::receiving::Receiving;
use super::recorder::Recorder;
use super::settling::Settling;
use crate::broker::{BrokerError, Observe};
use crate::message::{Failure, Settlement, Source};
use crate::telemetry::choices::{ParentMode, Trust};
use crate::telemetry::engine::{Clock, Engine, ErrorReport};

/// The telemetry of one subscription: receive, process and settle.
///
/// # Examples
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use throughline_core::message::{Operations, Source, System};
/// use throughline_core::telemetry::{Incoming, Instrumentation};
/// use throughline_core::CurrentSpan;
///
/// let source = Source::new(Arc::new(System::new("nats", Operations::DEFAULT))).with_destination("orders");
/// let consumer = Instrumentation::from_globals().consumer(Arc::new(source));
/// let headers: HashMap<String, String> = HashMap::new();
/// let processing = consumer.process(&Incoming::new("orders", &headers));
/// let context = processing.scope().context().clone();
/// processing.succeed();
/// # let _ = context;
/// ```
#[derive(Clone)]
pub struct Consumer(Recorder);

impl Consumer {
    pub(crate) fn new(engine: Arc<Engine>, source: Arc<Source>) -> Self {
        Self(Recorder::new(engine, source))
    }

    /// Sets the parent mode of this subscription alone.
    #[must_use]
    pub fn with_parent_mode(mut self, mode: ParentMode) -> Self {
        self.0.parent = mode;
        self
    }

    /// Sets how far the headers are trusted for this subscription alone.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.0.trust = trust;
        self
    }

    /// Whether a message is handled as without telemetry: nothing is recorded, and its headers say nothing.
    pub(crate) fn passes_through(&self, has_headers: bool) -> bool {
        !has_headers && !self.0.engine().is_recording()
    }

    /// Starts processing a single message: its span, with the message's context as parent and link, and its baggage current.
    pub fn process(&self, message: &Incoming<'_>) -> Processing {
        self.0.process(message)
    }

    /// Starts what is no message, so that the same code can run it: nothing is recorded, and nothing is current but what was.
    pub(crate) fn pass_by(&self) -> Processing {
        Processing::new(Context::current(), Vec::new(), Arc::clone(self.0.engine()), None)
    }

    /// Starts processing a batch: one span with a link to each message, none of them its parent, and their baggage merged.
    pub fn process_batch(&self, messages: &[Incoming<'_>]) -> Processing {
        self.0.process_batch(messages)
    }

    /// Starts a pull by the application under the current context; finish it when the messages are there.
    ///
    /// From then on this consumer and its clones count messages when they are received, not when they are processed.
    #[must_use]
    pub fn receive(&self) -> Receiving {
        self.0.count_at_receive();
        Receiving { recorder: self.0.clone(), clock: Clock::start(), ambient: Context::current() }
    }

    /// Starts a settlement; finish it when the broker has been told. `parent` is the context of the process span.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{collections::HashMap, sync::Arc};
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::{Incoming, Instrumentation};
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// use throughline_core::Settlement;
    ///
    /// let settling = consumer.settle(&Settlement::Ack, &opentelemetry::Context::current());
    /// // … ack …
    /// settling.finish(&[Incoming::new("orders", &headers)], None);
    /// ```
    #[must_use]
    pub fn settle(&self, settlement: &Settlement, parent: &Context) -> Settling {
        Settling {
            recorder: self.0.clone(),
            settlement: settlement.clone(),
            parent: parent.clone(),
            clock: Clock::start(),
        }
    }

    /// Records a settlement that began with `clock`; its span is a child of the process span in `parent`.
    // LINK-12.
    pub(crate) fn settled(
        &self,
        messages: &[Incoming<'_>],
        batch: bool,
        settlement: &Settlement,
        parent: &Context,
        clock: Clock,
        error: Option<&BrokerError>,
    ) {
        self.0.settled(messages, batch, settlement, parent, clock, error);
    }

    /// The `error.type` of a failure, as the user wants it.
    pub(crate) fn error_type_of<'a>(&self, failure: &'a Failure) -> Cow<'a, str> {
        ErrorReport::error_type_of(failure, &self.0.engine().settings)
    }

    /// Counts what became of a message; see `SETTLED_MESSAGES`.
    pub(crate) fn count_settlement(&self, settlement: &'static str, message: &Incoming<'_>) {
        self.0.count_settlement(settlement, message);
    }
}

/// An adapter settles in the background, in nobody's trace.
impl Observe for Consumer {
    fn meter(&self) -> Option<Meter> {
        self.0.engine().metrics.meter()
    }

    fn settled(
        &self,
        started: Instant,
        destination: Option<&str>,
        attributes: Vec<KeyValue>,
        error: Option<&BrokerError>,
    ) {
        let (clock, nobodys) = (Clock::started_at(started), Context::new());
        self.0.settled_up_to(destination, attributes, &Settlement::Ack, &nobodys, clock, error);
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("source", self.0.source()).finish_non_exhaustive()
    }
}

use opentelemetry::{Context, KeyValue};

use super::incoming::Incoming;
use super::recorder::Recorder;
use crate::broker::BrokerError;
use crate::message::Settlement;
use crate::telemetry::engine::Clock;

/// A settlement that is under way.
#[derive(Debug)]
pub struct Settling {
    pub(super) recorder: Recorder,
    pub(super) settlement: Settlement,
    pub(super) parent: Context,
    pub(super) clock: Clock,
}

impl Settling {
    /// Ends the settlement of a message handled alone, or of several settled by one call.
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
    /// let settling = consumer.settle(&Settlement::retry(), &opentelemetry::Context::current());
    /// settling.finish(&[Incoming::new("orders", &headers)], None);
    /// ```
    pub fn finish(self, messages: &[Incoming<'_>], error: Option<&BrokerError>) {
        let is_batch = messages.len() != 1;
        self.recorder.settled(messages, is_batch, &self.settlement, &self.parent, self.clock, error);
    }

    /// Ends the settlement of all messages up to some place, which is how a log is settled: the broker is told the place and not the
    /// messages.
    ///
    /// `destination` is that of the place, `None` where one call settles several of them; `attributes` describe it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use opentelemetry::KeyValue;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::Instrumentation;
    /// # let source = Arc::new(Source::new(Arc::new(System::new("example", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// use throughline_core::Settlement;
    /// let settling = consumer.settle(&Settlement::Ack, &opentelemetry::Context::current());
    /// settling.finish_up_to(Some("orders"), vec![KeyValue::new("example.offset", 12)], None);
    /// ```
    pub fn finish_up_to(self, destination: Option<&str>, attributes: Vec<KeyValue>, error: Option<&BrokerError>) {
        self.recorder.settled_up_to(destination, attributes, &self.settlement, &self.parent, self.clock, error);
    }
}

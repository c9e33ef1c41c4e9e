use std::time::Instant;

use opentelemetry::Context;

use super::incoming::Incoming;
use super::recorder::Recorder;
use crate::broker::BrokerError;
use crate::telemetry::engine::{Clock, ErrorReport};

/// A pull by the application that is under way.
#[derive(Debug)]
pub struct Receiving {
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
    pub(super) ambient: Context,
}

impl Receiving {
    /// Sets when the pull ended, where that is known only later: a stream of messages that is read while they are handled.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::Instrumentation;
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// use std::time::Instant;
    /// let receiving = consumer.receive();
    /// let last_arrival = Instant::now();
    /// // … handle the message …
    /// receiving.ended_at(last_arrival).finish_batch(&[]);
    /// ```
    #[must_use]
    pub fn ended_at(mut self, ended: Instant) -> Self {
        self.clock.end_at(ended);
        self
    }

    /// Ends a pull that yields one message at most.
    pub fn finish(self, message: &Incoming<'_>) {
        self.recorder.received(std::slice::from_ref(message), false, self.clock, &self.ambient, None);
    }

    /// Ends a pull of one message that yielded none in its time; it counts no messages.
    pub fn finish_empty(self) {
        self.recorder.received(&[], false, self.clock, &self.ambient, None);
    }

    /// Ends a pull that may yield several messages, also when it yielded none.
    pub fn finish_batch(self, messages: &[Incoming<'_>]) {
        self.recorder.received(messages, true, self.clock, &self.ambient, None);
    }

    /// Ends a pull of one message that failed.
    pub fn fail(self, error: &BrokerError) {
        self.failed(&[], false, error);
    }

    /// Ends a pull of several messages that failed, with those it had yielded by then.
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
    /// use throughline_core::broker::BrokerErrorKind;
    /// use throughline_core::BrokerError;
    /// let error = BrokerError::new(BrokerErrorKind::Ended, "_OTHER", "the consumer was deleted");
    /// consumer.receive().fail_after(&[Incoming::new("orders", &headers)], &error);
    /// ```
    pub fn fail_after(self, messages: &[Incoming<'_>], error: &BrokerError) {
        self.failed(messages, true, error);
    }

    fn failed(&self, messages: &[Incoming<'_>], batch: bool, error: &BrokerError) {
        let report = ErrorReport::of_broker(error, &self.recorder.engine().settings);
        self.recorder.received(messages, batch, self.clock, &self.ambient, Some(&report));
    }
}

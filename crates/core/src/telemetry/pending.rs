use std::time::Instant;

use opentelemetry::{Context, KeyValue};

use super::consumer::Consumer;
use super::engine::{Clock, ErrorReport};
use super::incoming::Incoming;
use crate::broker::BrokerError;
use crate::message::Settlement;

/// Is a pull by the application that is under way.
#[derive(Debug)]
pub struct Receiving {
    pub(super) consumer: Consumer,
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
    /// consumer.receive().finish(&Incoming::new("orders", &headers));
    /// ```
    pub fn finish(self, message: &Incoming<'_>) {
        self.consumer.received(std::slice::from_ref(message), false, &self, None);
    }

    /// Ends a pull of one message that yielded none in its time (SPAN-31); it counts no messages (ATTR-C-07).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::Instrumentation;
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// consumer.receive().finish_empty();
    /// ```
    pub fn finish_empty(self) {
        self.consumer.received(&[], false, &self, None);
    }

    /// Ends a pull that may yield several messages, also when it yielded none (SPAN-31).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::Instrumentation;
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// consumer.receive().finish_batch(&[]);
    /// ```
    pub fn finish_batch(self, messages: &[Incoming<'_>]) {
        self.consumer.received(messages, true, &self, None);
    }

    /// Ends a pull of one message that failed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::Instrumentation;
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// use throughline_core::broker::{BrokerError, BrokerErrorKind};
    /// consumer.receive().fail(&BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer within 5 s"));
    /// ```
    pub fn fail(self, error: &BrokerError) {
        self.consumer.received(
            &[],
            false,
            &self,
            Some(&ErrorReport::of_broker(error, &self.consumer.engine().settings)),
        );
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
    /// use throughline_core::broker::{BrokerError, BrokerErrorKind};
    /// let error = BrokerError::new(BrokerErrorKind::Ended, "_OTHER", "the consumer was deleted");
    /// consumer.receive().fail_after(&[Incoming::new("orders", &headers)], &error);
    /// ```
    pub fn fail_after(self, messages: &[Incoming<'_>], error: &BrokerError) {
        self.consumer.received(
            messages,
            true,
            &self,
            Some(&ErrorReport::of_broker(error, &self.consumer.engine().settings)),
        );
    }
}

/// Is a settlement that is under way.
#[derive(Debug)]
pub struct Settling {
    pub(super) consumer: Consumer,
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
        self.consumer.settled(messages, is_batch, &self.settlement, &self.parent, self.clock, error);
    }

    /// Ends the settlement of all messages up to some place, which is how a log is settled: the broker is told the place and not the
    /// messages (SPAN-33).
    ///
    /// `destination` is that of the place, `None` where one call settles several of them (ATTR-K-11); `attributes` describe it.
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
        self.consumer.settled_up_to(destination, attributes, &self.settlement, &self.parent, self.clock, error);
    }
}

use std::fmt;

use opentelemetry::{Context, KeyValue};

use crate::broker::PublishError;
use crate::guard::Foreign;
use crate::message::Receipt;
use crate::telemetry::engine::ErrorReport;
use crate::telemetry::operation::Operation;

/// A publish that is under way; its span ends with the broker's confirmation. Dropped without an end, it is recorded as cancelled.
#[must_use = "dropped at once, the publish is recorded as cancelled"]
pub struct Sending {
    /// Without an SDK there is nothing to record.
    operation: Option<Operation>,
    messages: usize,
}

impl Sending {
    pub(super) const fn new(operation: Option<Operation>, messages: usize) -> Self {
        Self { operation, messages }
    }

    /// Ends a publish that was accepted, with what the broker's answer says.
    pub(crate) fn finish_with(self, receipt: &Receipt) {
        let Some(operation) = &self.operation else { return };
        let attributes = operation.engine().guard().run(Foreign::Answer, || receipt.attributes());
        self.finish(attributes.unwrap_or_default(), None);
    }

    /// Returns the context that holds the send span, under which the client's call is made.
    #[must_use]
    pub fn context(&self) -> Context {
        self.own_context().cloned().unwrap_or_else(Context::current)
    }

    /// The context that holds the send span, if there is one.
    pub(crate) fn own_context(&self) -> Option<&Context> {
        self.operation.as_ref()?.context()
    }

    /// Ends the publish of one message; `late` are attributes that came with the broker's answer.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// # let mut headers = Headers::new();
    /// producer.send(&Target::new("orders"), Outgoing::new(&mut headers)).finish(Vec::new(), None);
    /// ```
    pub fn finish(self, late: Vec<KeyValue>, error: Option<&PublishError>) {
        let Some(operation) = self.operation else { return };
        let report = error.map(|error| ErrorReport::of_publish(error, &operation.engine().settings));
        let failed = report.as_ref().map(|report| report.error_type.as_ref());
        operation.engine().metrics.sent(self.messages, &operation.prepared.counts, failed);
        operation.finish(late, report.as_ref());
    }

    /// Ends the publish of a batch; messages that failed are counted with their `error.type`, the others without.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// # let mut headers = Headers::new();
    /// producer.send_batch(&Target::new("orders"), vec![Outgoing::new(&mut headers)]).finish_batch(1, &[]);
    /// ```
    pub fn finish_batch(self, total: usize, errors: &[&PublishError]) {
        let Some(operation) = self.operation else { return };
        let (metrics, counts) = (&operation.engine().metrics, &operation.prepared.counts);
        metrics.sent(total.saturating_sub(errors.len()), counts, None);
        for error in errors {
            metrics.sent(1, counts, Some(error.error_type()));
        }
        let report = errors.first().map(|first| ErrorReport::of_publish(first, &operation.engine().settings));
        operation.finish(Vec::new(), report.as_ref());
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("messages", &self.messages).finish_non_exhaustive()
    }
}

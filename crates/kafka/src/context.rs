use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Statistics};
use throughline_core::broker::ConnectionState;
use tracing::{debug, error, info, warn};

use crate::outage::{Outage, Repeats};

/// Takes what a client says outside of its calls: log lines to `tracing` under the target `rdkafka`, and why a connection
/// is refused. The client never logs what is in a message.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Why the credentials were refused last, and in which words.
    refused: Mutex<Option<(KafkaError, String)>>,
    outage: Outage,
    /// Errors that are no outage, by their code.
    errors: Repeats<Option<RDKafkaErrorCode>>,
}

/// Tells whether an error says that a broker is not reached. The client says it to the context, too, and there it is logged.
pub(crate) fn is_outage(failed: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, NetworkException, OperationTimedOut, Resolve};
    let code = failed.rdkafka_error_code();
    matches!(code, Some(AllBrokersDown | BrokerTransportFailure | NetworkException | OperationTimedOut | Resolve))
}

impl Context {
    /// Notes which brokers the client is connected to.
    pub(crate) fn note_brokers(&self, statistics: &Statistics) {
        self.outage.note_brokers(statistics);
    }

    /// Tells whether any broker is reached.
    pub(crate) fn connection(&self) -> ConnectionState {
        self.outage.connection()
    }

    /// Returns why the server refused the credentials or the encryption, if it did since the last call.
    pub(crate) fn take_refused(&self) -> Option<(KafkaError, String)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        match level {
            // The same as the error that comes for it, and more often.
            _ if matches!(facility, "FAIL" | "REQTMOUT") => debug!(target: "rdkafka", facility, "{line}"),
            // Nothing to warn of: it was given for all clients of the connection.
            RDKafkaLogLevel::Warning if line.contains(" property and will be ignored by") => {
                debug!(target: "rdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                error!(target: "rdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Warning => warn!(target: "rdkafka", facility, "{line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(target: "rdkafka", facility, "{line}"),
            RDKafkaLogLevel::Debug => debug!(target: "rdkafka", facility, "{line}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.note_brokers(&statistics);
    }

    fn error(&self, failed: KafkaError, reason: &str) {
        // The client tries again by itself; what does not succeed fails the call that waits for it.
        if is_outage(&failed) {
            if failed.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
                self.outage.note_all_lost(reason);
            }
            return self.outage.note_lost(reason);
        }
        let code = failed.rdkafka_error_code();
        let is_refusal = matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL));
        if is_refusal {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((failed, reason.to_owned()));
        }
        let Some(left_out) = self.errors.admit(code) else { return };
        if is_refusal {
            error!(target: "rdkafka", left_out, "{reason}");
        } else {
            warn!(target: "rdkafka", left_out, "{reason}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Counts the lines above the level of a developer.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= tracing::Level::INFO
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn an_outage_is_one_line_however_often_the_client_says_it() {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let context = Context::default();
            for _ in 0..1_000 {
                for code in [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown] {
                    context.error(KafkaError::Global(code), "127.0.0.1:9092/1: Connect failed");
                }
                context.log(RDKafkaLogLevel::Error, "FAIL", "127.0.0.1:9092/1: Connect failed");
            }
            // Something else is heard all the same.
            context.error(KafkaError::Global(RDKafkaErrorCode::TopicAuthorizationFailed), "not allowed");
        });
        assert_eq!(lines.0.load(Ordering::Relaxed), 2);
    }
}

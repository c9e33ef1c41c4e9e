use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

/// Takes what a client says outside of its calls: log lines to `tracing` under the target `rdkafka`, and why a connection
/// is refused. The client never logs what is in a message.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Why the credentials were refused last, and in which words.
    refused: Mutex<Option<(KafkaError, String)>>,
}

impl Context {
    /// Returns why the server refused the credentials or the encryption, if it did since the last call.
    pub(crate) fn take_refused(&self) -> Option<(KafkaError, String)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        match level {
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

    /// Statistics are not used.
    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, failed: KafkaError, reason: &str) {
        let code = failed.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((failed, reason.to_owned()));
            error!(target: "rdkafka", "{reason}");
        } else {
            // The client tries again by itself; what does not succeed fails the call that waits for it.
            warn!(target: "rdkafka", "{reason}");
        }
    }
}

//! Takes places in the code out of log records.

use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::LogRecord;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};

/// Takes the names from log records that `tracing` makes up of the place in the code: they are no names of events, and show where it was built.
#[derive(Debug)]
pub(crate) struct WithoutPlaces;

impl LogProcessor for WithoutPlaces {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        if record.event_name().is_some_and(|name| name.starts_with("event ") && name.contains(".rs:")) {
            record.set_event_name("");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

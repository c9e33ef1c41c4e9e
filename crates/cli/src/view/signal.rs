//! The three signals of OTLP: how their requests are kept and answered, whatever they came by.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde::de::DeserializeOwned;

use super::hold::{Hold, Refusal};
use super::read::{self, Reading};

/// A request of one signal.
pub(super) trait Signal: Default + DeserializeOwned + Message + Send + 'static {
    /// The answer over gRPC, and over HTTP in binary.
    type Answer: Message;

    /// The name of the count of what was refused, in an answer in JSON.
    const REFUSED: &'static str;

    /// Takes what it brings, and returns what was refused of it.
    fn keep(self, hold: &Hold) -> Result<Refused, Refusal>;

    /// Returns the answer that says so.
    fn answer(refused: Refused) -> Self::Answer;
}

/// What was refused of a request, and why.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Refused {
    pub(super) count: i64,
    pub(super) reason: String,
}

impl Refused {
    fn of(count: u64, reason: &str) -> Self {
        Self { count: count.try_into().unwrap_or(i64::MAX), reason: reason.to_owned() }
    }

    /// Whether everything was taken.
    pub(super) fn is_none(&self) -> bool {
        self.count == 0
    }

    /// What an answer says of it, unless everything was taken.
    fn partial<T>(self, of: impl FnOnce(i64, String) -> T) -> Option<T> {
        if self.is_none() { None } else { Some(of(self.count, self.reason)) }
    }
}

impl Signal for ExportTraceServiceRequest {
    type Answer = ExportTraceServiceResponse;

    const REFUSED: &'static str = "rejectedSpans";

    fn keep(self, hold: &Hold) -> Result<Refused, Refusal> {
        let mut reading = Reading::default();
        let spans = read::spans(self, &hold.baggage, &mut reading);
        hold.take_spans(spans, reading.losses)?;
        Ok(Refused::of(reading.losses.refused, reading.reason.as_deref().unwrap_or_default()))
    }

    fn answer(refused: Refused) -> Self::Answer {
        let partial = refused
            .partial(|rejected_spans, error_message| ExportTracePartialSuccess { rejected_spans, error_message });
        ExportTraceServiceResponse { partial_success: partial }
    }
}

impl Signal for ExportLogsServiceRequest {
    type Answer = ExportLogsServiceResponse;

    const REFUSED: &'static str = "rejectedLogRecords";

    fn keep(self, hold: &Hold) -> Result<Refused, Refusal> {
        let mut reading = Reading::default();
        let read::Records { said, loose } = read::records(self, &mut reading);
        let lost = hold.take_records(said, loose, reading.losses)?;
        Ok(Refused::of(lost, "no room for more log records of no trace"))
    }

    fn answer(refused: Refused) -> Self::Answer {
        let partial = refused.partial(|rejected_log_records, error_message| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message,
        });
        ExportLogsServiceResponse { partial_success: partial }
    }
}

impl Signal for ExportMetricsServiceRequest {
    type Answer = ExportMetricsServiceResponse;

    const REFUSED: &'static str = "rejectedDataPoints";

    fn keep(self, hold: &Hold) -> Result<Refused, Refusal> {
        let mut reading = Reading::default();
        let points = read::points(self, &mut reading);
        let lost = hold.take_points(points, reading.losses);
        Ok(Refused::of(lost, "no room for more series, or a kind that is not shown"))
    }

    fn answer(refused: Refused) -> Self::Answer {
        let partial = refused.partial(|rejected_data_points, error_message| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message,
        });
        ExportMetricsServiceResponse { partial_success: partial }
    }
}

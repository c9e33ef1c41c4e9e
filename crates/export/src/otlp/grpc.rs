//! OTLP over gRPC.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::logs::tonic::group_logs_by_resource_and_scope;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Extensions, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::answer::Answer;
use super::settings::Sending;
use crate::error::{ExportError, ExportErrorKind};
use crate::one_line::one_line;
use crate::rejections::Rejections;
use crate::retry::{self, Again, Refusal};
use crate::runtime::Runtime;

/// Exports one signal over gRPC.
///
/// It is our own: `opentelemetry-otlp` 0.33.1 tells nobody what a backend refuses of an export, and counts all of it as delivered.
#[derive(Debug)]
pub(super) struct GrpcExporter {
    connection: Connection,
    runtime: Runtime,
    timeout: Duration,
    rejections: Rejections,
    resource: ResourceAttributesWithSchema,
    temporality: Temporality,
}

/// What calls need. Its clones share the channel.
#[derive(Clone, Debug)]
struct Connection {
    endpoint: Endpoint,
    channel: Arc<Mutex<Channel>>,
    headers: MetadataMap,
    is_compressed: bool,
}

impl GrpcExporter {
    /// Connects at the first export. Fails where the endpoint or the certificates are none.
    pub(super) fn new(
        sending: &Sending,
        temporality: Temporality,
        runtime: &Runtime,
        rejections: &Rejections,
    ) -> Result<Self, ExportError> {
        let _entered = runtime.handle().enter();
        let failed = |error| ExportError::caused_by(ExportErrorKind::Configuration, error);
        let endpoint = Endpoint::from_shared(sending.endpoint.clone()).map_err(failed)?;
        let endpoint =
            endpoint.user_agent(concat!("throughline-export/", env!("CARGO_PKG_VERSION"))).map_err(failed)?;
        #[cfg(feature = "tls")]
        let endpoint = match sending.endpoint.starts_with("https://") {
            true => endpoint.tls_config(sending.tls.for_grpc()).map_err(failed)?,
            false => endpoint,
        };
        let endpoint = endpoint.connect_timeout(sending.timeout);
        let connection = Connection {
            channel: Arc::new(Mutex::new(endpoint.connect_lazy())),
            endpoint,
            headers: MetadataMap::from_headers(sending.headers.clone()),
            is_compressed: sending.gzip,
        };
        Ok(Self {
            connection,
            runtime: runtime.clone(),
            timeout: sending.timeout,
            rejections: rejections.clone(),
            resource: ResourceAttributesWithSchema::default(),
            temporality,
        })
    }

    /// Sends on the runtime of telemetry, whatever thread asks.
    async fn send<M: Message + Clone + 'static>(&self, path: &'static str, request: M) -> OTelSdkResult {
        let (connection, rejections, timeout) = (self.connection.clone(), self.rejections.clone(), self.timeout);
        let sending = async move {
            let call = || connection.clone().call(path, request.clone(), rejections.clone());
            let sent = retry::within(timeout, call).await;
            if matches!(sent, Err(OTelSdkError::Timeout(_))) {
                connection.renew();
            }
            sent
        };
        match self.runtime.handle().spawn(sending).await {
            Ok(sent) => sent,
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }
}

impl Connection {
    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects again at the next call: who does not answer may be gone without a word, and TCP would believe in it for minutes.
    fn renew(&self) {
        *self.channel() = self.endpoint.connect_lazy();
    }

    async fn call<M: Message + 'static>(
        self,
        path: &'static str,
        request: M,
        rejections: Rejections,
    ) -> Result<(), Refusal> {
        let mut client = Grpc::new(self.channel().clone());
        if self.is_compressed {
            client = client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| refusal(&Status::from_error(Box::new(error))))?;
        let request = Request::from_parts(self.headers, Extensions::default(), request);
        let codec = ProstCodec::<M, Answer>::new();
        let answer = client.unary(request, PathAndQuery::from_static(path), codec).await;
        rejections.note(answer.map_err(|status| refusal(&status))?.into_inner().rejected());
        Ok(())
    }
}

/// Why a call failed, and whether that may pass, as OTLP says.
fn refusal(status: &Status) -> Refusal {
    let again = match status.code() {
        Code::Aborted
        | Code::Cancelled
        | Code::DataLoss
        | Code::DeadlineExceeded
        | Code::OutOfRange
        | Code::Unavailable => Again::After(wish(status).unwrap_or_default()),
        // Only where the server says when.
        Code::ResourceExhausted => wish(status).map_or(Again::Never, Again::After),
        _ => Again::Never,
    };
    let mut text = format!("{:?}, {}", status.code(), one_line(status.message()));
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    Refusal { error: OTelSdkError::InternalFailure(text), again }
}

/// How long the server wants to be left alone.
fn wish(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

impl SpanExporter for GrpcExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        self.send("/opentelemetry.proto.collector.trace.v1.TraceService/Export", request).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl LogExporter for GrpcExporter {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let resource_logs = group_logs_by_resource_and_scope(&batch, &self.resource);
        let request = ExportLogsServiceRequest { resource_logs };
        self.send("/opentelemetry.proto.collector.logs.v1.LogsService/Export", request).await
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl PushMetricExporter for GrpcExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let request = ExportMetricsServiceRequest::from(metrics);
        self.send("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", request).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_before_the_server_wants_it() {
        let again = |code| refusal(&Status::new(code, "no")).again;
        for code in [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::DataLoss] {
            assert_eq!(again(code), Again::After(Duration::ZERO), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::ResourceExhausted] {
            assert_eq!(again(code), Again::Never, "{code:?}");
        }
        let wait = Duration::from_secs(2);
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let details = ErrorDetails::with_retry_info(Some(wait));
            assert_eq!(refusal(&Status::with_error_details(code, "later", details)).again, Again::After(wait));
        }
    }

    #[test]
    fn a_failure_says_its_cause() {
        let cause = std::io::Error::other("connection refused");
        let text = refusal(&Status::from_error(Box::new(cause))).error.to_string();
        assert!(text.contains("connection refused"), "{text}");
    }
}

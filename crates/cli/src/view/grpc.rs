//! OTLP over gRPC.

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::response::Response;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tonic::{Code, Request, Status};

use super::answer::{LARGEST_BODY, Problem};
use super::hold::Hold;
use super::signal::Signal;

/// The header with the code of an error.
pub(super) const STATUS: &str = "grpc-status";

/// Hands requests to the hold.
#[derive(Clone, Debug)]
struct Receiver(Arc<Hold>);

/// The services of the three signals.
pub(super) fn routes(hold: Arc<Hold>) -> axum::Router {
    let receiver = Receiver(hold);
    let traces = TraceServiceServer::new(receiver.clone());
    let metrics = MetricsServiceServer::new(receiver.clone());
    let logs = LogsServiceServer::new(receiver);
    Routes::new(traces.accept_compressed(Gzip).max_decoding_message_size(LARGEST_BODY))
        .add_service(metrics.accept_compressed(Gzip).max_decoding_message_size(LARGEST_BODY))
        .add_service(logs.accept_compressed(Gzip).max_decoding_message_size(LARGEST_BODY))
        .into_axum_router()
}

/// Corrects the codes of what `tonic` refuses before the hold sees it. OTLP has a sender try again where a message is out of range, and
/// names what cannot be decoded an invalid argument.
pub(super) fn corrected(mut response: Response) -> Response {
    let right = match code(&response) {
        Some(Code::OutOfRange) => Code::ResourceExhausted,
        Some(Code::Internal) => Code::InvalidArgument,
        _ => return response,
    };
    response.headers_mut().insert(STATUS, HeaderValue::from(right as i32));
    response
}

/// The code of an answer that has no body: of an error.
pub(super) fn code(response: &Response) -> Option<Code> {
    Some(Code::from_bytes(response.headers().get(STATUS)?.as_bytes()))
}

impl Receiver {
    fn keep<S: Signal>(&self, request: Request<S>) -> Result<tonic::Response<S::Answer>, Status> {
        let refused = request.into_inner().keep(&self.0).map_err(Problem::from)?;
        Ok(tonic::Response::new(S::answer(refused)))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        self.keep(request)
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        self.keep(request)
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        self.keep(request)
    }
}

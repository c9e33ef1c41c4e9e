//! A backend that takes OTLP over gRPC and HTTP on a thread of its own, and does with it what a test says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the backend says of items that it refuses.
pub(super) const WHY: &str = "too old";

/// What the backend does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Take,
    /// Refuses with this status of HTTP.
    Refuse(u16),
    /// Takes an export and refuses so many of its items.
    Partly(i64),
    /// Never answers.
    Silence,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub(super) struct Came {
    /// `service.name`, name, for each span.
    pub(super) spans: Vec<(String, String)>,
    pub(super) metrics: Vec<(String, String)>,
    /// Name, `error.type` and value of each counter that is not zero, sorted.
    pub(super) counts: Vec<(String, String, i64)>,
    pub(super) logs: Vec<(String, String)>,
    /// The value of the header `token` and the encoding, for each request.
    pub(super) requests: Vec<(Option<String>, Option<String>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Receiver {
    came: Arc<Mutex<Came>>,
    /// The answers to come; when there is none left, requests are taken.
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Receiver {
    /// Starts one that answers like this, then takes everything.
    pub(super) fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::start_with(answers, tonic::transport::Server::builder())
    }

    /// Starts one whose gRPC is of that kind.
    pub(super) fn start_with(answers: impl IntoIterator<Item = Answer>, mut server: tonic::transport::Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let (grpc, http) = (bind(), bind());
        let receiver = Self {
            came: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            grpc: grpc.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
        };
        let server = server
            .add_service(TraceServiceServer::new(receiver.clone()).accept_compressed(Gzip))
            .add_service(MetricsServiceServer::new(receiver.clone()).accept_compressed(Gzip))
            .add_service(LogsServiceServer::new(receiver.clone()).accept_compressed(Gzip));
        runtime.spawn(server.serve_with_incoming(TcpIncoming::from(grpc)));
        let router = axum::Router::new().fallback(take).with_state(receiver.clone());
        runtime.spawn(async move { axum::serve(http, router).await });
        drop(entered);
        // It lives as long as the test program.
        std::mem::forget(runtime);
        receiver
    }

    pub(super) fn came(&self) -> Came {
        self.came.lock().unwrap().clone()
    }

    /// Waits until what came is as a test expects.
    pub(super) fn wait(&self, is_there: impl Fn(&Came) -> bool) -> Came {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let came = self.came();
            if is_there(&came) {
                return came;
            }
            assert!(Instant::now() < deadline, "what was waited for did not come; there is {came:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many items are refused, or with which status all are.
    async fn answer(&self, token: Option<String>, encoding: Option<String>) -> Result<i64, u16> {
        self.came.lock().unwrap().requests.push((token, encoding));
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Take);
        match answer {
            Answer::Take => Ok(0),
            Answer::Partly(count) => Ok(count),
            Answer::Refuse(status) => Err(status),
            Answer::Silence => std::future::pending().await,
        }
    }

    async fn called<T>(&self, request: &Request<T>) -> Result<i64, Status> {
        let value = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.answer(value("token"), value("grpc-encoding")).await.map_err(|status| match status {
            503 => Status::unavailable("later"),
            _ => Status::invalid_argument("no"),
        })
    }

    fn traces(&self, request: &ExportTraceServiceRequest) {
        let mut came = self.came.lock().unwrap();
        for resource in &request.resource_spans {
            let service = service_name(resource.resource.as_ref());
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            came.spans.extend(spans.map(|span| (service.clone(), span.name.clone())));
        }
    }

    fn metrics(&self, request: &ExportMetricsServiceRequest) {
        let mut came = self.came.lock().unwrap();
        for resource in &request.resource_metrics {
            let service = service_name(resource.resource.as_ref());
            let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            for metric in metrics {
                came.metrics.push((service.clone(), metric.name.clone()));
                came.counts.extend(counts(metric));
            }
            came.counts.sort();
        }
    }

    fn logs(&self, request: &ExportLogsServiceRequest) {
        let mut came = self.came.lock().unwrap();
        for resource in &request.resource_logs {
            let service = service_name(resource.resource.as_ref());
            let logs = resource.scope_logs.iter().flat_map(|scope| &scope.log_records);
            came.logs.extend(
                logs.map(|log| (service.clone(), text(log.body.as_ref().and_then(|body| body.value.as_ref())))),
            );
        }
    }
}

fn counts(metric: &Metric) -> Vec<(String, String, i64)> {
    let Some(Data::Sum(sum)) = &metric.data else { return Vec::new() };
    let points = sum.data_points.iter().filter_map(|point| {
        let Some(Number::AsInt(value)) = point.value else { return None };
        let said = point.attributes.iter().find(|attribute| attribute.key == "error.type");
        let error = said.and_then(|said| said.value.as_ref()).map(|value| text(value.value.as_ref()));
        Some((metric.name.clone(), error.unwrap_or_default(), value))
    });
    points.filter(|(_, _, value)| *value > 0).collect()
}

fn bind() -> TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

fn service_name(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let name = attributes.iter().find(|attribute| attribute.key == "service.name");
    text(name.and_then(|name| name.value.as_ref()).and_then(|value| value.value.as_ref()))
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

async fn take(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], Vec<u8>) {
    let is_json = headers.get("content-type").is_some_and(|kind| kind == "application/json");
    let kind = [("content-type", if is_json { "application/json" } else { "application/x-protobuf" })];
    match taken(&receiver, &uri, &headers, is_json, &body).await {
        Ok(0) => (StatusCode::OK, kind, Vec::new()),
        Ok(count) if is_json => {
            let name = match uri.path() {
                "/v1/traces" => "rejectedSpans",
                "/v1/metrics" => "rejectedDataPoints",
                _ => "rejectedLogRecords",
            };
            let text = format!(r#"{{"partialSuccess":{{"{name}":"{count}","errorMessage":"{WHY}"}}}}"#);
            (StatusCode::OK, kind, text.into_bytes())
        }
        Ok(count) => {
            let partial = ExportTracePartialSuccess { rejected_spans: count, error_message: WHY.to_owned() };
            (StatusCode::OK, kind, ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec())
        }
        Err(status) => (StatusCode::from_u16(status).unwrap(), kind, Vec::new()),
    }
}

async fn taken(receiver: &Receiver, uri: &Uri, headers: &HeaderMap, is_json: bool, body: &Bytes) -> Result<i64, u16> {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let encoding = value("content-encoding");
    let refused = receiver.answer(value("token"), encoding.clone()).await?;
    if encoding.is_some() {
        return Ok(refused);
    }
    match uri.path() {
        "/v1/traces" => receiver.traces(&read(is_json, body)),
        "/v1/metrics" => receiver.metrics(&read(is_json, body)),
        "/v1/logs" => receiver.logs(&read(is_json, body)),
        _ => return Err(404),
    }
    Ok(refused)
}

fn read<T: Message + Default + serde::de::DeserializeOwned>(is_json: bool, body: &[u8]) -> T {
    if is_json { serde_json::from_slice(body).unwrap() } else { T::decode(body).unwrap() }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let refused = self.called(&request).await?;
        self.traces(request.get_ref());
        let partial_success =
            (refused > 0).then(|| ExportTracePartialSuccess { rejected_spans: refused, error_message: WHY.to_owned() });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let refused = self.called(&request).await?;
        self.metrics(request.get_ref());
        let partial_success = (refused > 0)
            .then(|| ExportMetricsPartialSuccess { rejected_data_points: refused, error_message: WHY.to_owned() });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let refused = self.called(&request).await?;
        self.logs(request.get_ref());
        let partial_success = (refused > 0)
            .then(|| ExportLogsPartialSuccess { rejected_log_records: refused, error_message: WHY.to_owned() });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

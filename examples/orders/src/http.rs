//! What all services do over HTTP: probes, and asking another service.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::HeaderInjector;
use throughline::serve::Health;
use throughline::{BoxError, Bytes, CurrentSpan};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::error;

/// How long the other service has for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A client that continues the trace of the message that is being handled.
#[derive(Clone, Debug)]
pub struct Client {
    client: legacy::Client<HttpConnector, Empty<Bytes>>,
    url: Uri,
}

impl Client {
    /// Creates the client of one URL.
    #[must_use]
    pub fn new(url: Uri) -> Self {
        Self { client: legacy::Client::builder(TokioExecutor::new()).build_http(), url }
    }

    /// Sends a GET request with the trace context and the baggage of `span`, and returns the status of the answer.
    ///
    /// # Errors
    ///
    /// Fails when no answer comes within two seconds, or the other service failed (5xx).
    pub async fn get(&self, span: &impl CurrentSpan) -> Result<StatusCode, ClientError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        span.inject(&mut HeaderInjector(request.headers_mut()));
        let answer = timeout(ANSWER_TIMEOUT, self.client.request(request)).await;
        match answer.map_err(ClientError::new)?.map_err(ClientError::new)?.status() {
            status if status.is_server_error() => Err(ClientError::new(format!("it answered {status}"))),
            status => Ok(status),
        }
    }
}

/// A service that does not answer, or that failed.
#[derive(Debug, thiserror::Error)]
#[error("the other service gave no answer")]
pub struct ClientError(#[source] BoxError);

impl ClientError {
    fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

/// Answers probes at `/livez` and `/readyz`, in a task that outlives the service.
pub fn spawn_probes(listener: TcpListener, health: Health) {
    let livez = |State(health): State<Health>| async move { probe(health.is_live(), &health) };
    let readyz = |State(health): State<Health>| async move { probe(health.is_ready(), &health) };
    let router = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(health);
    tokio::spawn(async move {
        if let Err(failed) = axum::serve(listener, router).await {
            error!(error = %failed, "probes are answered no more");
        }
    });
}

fn probe(is_so: bool, health: &Health) -> (StatusCode, String) {
    let status = if is_so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, health.to_string())
}

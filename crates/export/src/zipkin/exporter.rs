//! What sends spans to Zipkin.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode, Uri};
use opentelemetry::Key;
use opentelemetry_http::{Bytes, HttpClient};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::time::{Instant, sleep, timeout_at};

use super::span::ZipkinSpan;
use crate::client::Client;
use crate::error::ExportError;
use crate::runtime::Runtime;

/// How often a failed export is tried again, and the first pause; each next one is twice as long.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Sends spans to Zipkin.
///
/// It is our own: `opentelemetry-zipkin` 0.33.0 sends no name of the service, and a root span with a parent of zeros.
#[derive(Debug)]
pub(super) struct ZipkinExporter {
    client: Arc<Client>,
    runtime: Runtime,
    endpoint: Uri,
    timeout: Duration,
    service_name: String,
}

impl ZipkinExporter {
    pub(super) fn new(runtime: &Runtime, endpoint: Uri, timeout: Duration) -> Result<Self, ExportError> {
        let client = Client::new(
            runtime,
            timeout,
            &HeaderMap::new(),
            #[cfg(feature = "tls")]
            &crate::tls::Tls::default(),
        )?;
        let (client, runtime) = (Arc::new(client), runtime.clone());
        Ok(Self { client, runtime, endpoint, timeout, service_name: String::new() })
    }
}

impl SpanExporter for ZipkinExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans: Vec<_> = batch.iter().map(|span| ZipkinSpan::new(&self.service_name, span)).collect();
        let body = Bytes::from(serde_json::to_vec(&spans).map_err(failed)?);
        let (client, endpoint, until) = (self.client.clone(), self.endpoint.clone(), Instant::now() + self.timeout);
        let sending = async move {
            match timeout_at(until, send(&client, &endpoint, &body)).await {
                Ok(sent) => sent,
                Err(_) => Err(failed("Zipkin did not answer in time")),
            }
        };
        self.runtime.handle().spawn(sending).await.map_err(failed)?
    }

    fn set_resource(&mut self, resource: &Resource) {
        let name = resource.get_ref(&Key::from_static_str("service.name"));
        self.service_name = name.map(|name| name.as_str().into_owned()).unwrap_or_default();
    }
}

/// Sends until Zipkin has it, refuses it for good, or has failed too often.
async fn send(client: &Client, endpoint: &Uri, body: &Bytes) -> OTelSdkResult {
    let mut pause = FIRST_PAUSE;
    for attempt in 0..=RETRIES {
        match once(client, endpoint, body).await {
            Err(Refusal { error, may_pass: true }) if attempt == RETRIES => return Err(error),
            Err(Refusal { may_pass: true, .. }) => sleep(pause).await,
            Err(Refusal { error, .. }) => return Err(error),
            Ok(()) => return Ok(()),
        }
        pause *= 2;
    }
    Ok(())
}

struct Refusal {
    error: OTelSdkError,
    may_pass: bool,
}

async fn once(client: &Client, endpoint: &Uri, body: &Bytes) -> Result<(), Refusal> {
    let request = Request::post(endpoint.clone()).header(CONTENT_TYPE, "application/json").body(body.clone());
    let request = request.map_err(|error| Refusal { error: failed(error), may_pass: false })?;
    match client.send_bytes(request).await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => {
            let status = response.status();
            let may_pass = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            Err(Refusal { error: failed(format_args!("Zipkin answered {status}")), may_pass })
        }
        Err(error) => Err(Refusal { error: failed(error), may_pass: true }),
    }
}

fn failed(why: impl Display) -> OTelSdkError {
    OTelSdkError::InternalFailure(why.to_string())
}

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

use super::span::ZipkinSpan;
use crate::client::Client;
use crate::error::ExportError;
use crate::retry::{self, Again, Refusal};
use crate::runtime::Runtime;

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
        let (client, endpoint, timeout) = (self.client.clone(), self.endpoint.clone(), self.timeout);
        let send = move || once(client.clone(), endpoint.clone(), body.clone());
        let sending = async move { retry::within(timeout, send).await };
        self.runtime.handle().spawn(sending).await.map_err(failed)?
    }

    fn set_resource(&mut self, resource: &Resource) {
        let name = resource.get_ref(&Key::from_static_str("service.name"));
        self.service_name = name.map(|name| name.as_str().into_owned()).unwrap_or_default();
    }
}

async fn once(client: Arc<Client>, endpoint: Uri, body: Bytes) -> Result<(), Refusal> {
    let request = Request::post(endpoint).header(CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|error| Refusal { error: failed(error), again: Again::Never })?;
    match client.send_bytes(request).await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => {
            let status = response.status();
            let may_pass = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            let again = if may_pass { Again::SOON } else { Again::Never };
            Err(Refusal { error: failed(format_args!("Zipkin answered {status}")), again })
        }
        Err(error) => Err(Refusal { error: failed(error), again: Again::SOON }),
    }
}

fn failed(why: impl Display) -> OTelSdkError {
    OTelSdkError::InternalFailure(why.to_string())
}

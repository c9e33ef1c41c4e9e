//! What sends over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

use crate::runtime::Runtime;

/// Sends on the runtime of telemetry, whatever thread asks, with the headers that the code adds.
#[derive(Debug)]
pub(crate) struct Client {
    inner: HyperClient,
    runtime: Runtime,
    headers: HeaderMap,
}

impl Client {
    pub(crate) fn new(runtime: &Runtime, timeout: Duration, headers: &HeaderMap) -> Self {
        let _entered = runtime.handle().enter();
        let inner = HyperClient::with_default_connector(timeout, None);
        Self { inner, runtime: runtime.clone(), headers: headers.clone() }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let inner = self.inner.clone();
        self.runtime.handle().spawn(async move { inner.send_bytes(request).await }).await?
    }
}

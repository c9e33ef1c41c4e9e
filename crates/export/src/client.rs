//! What sends over HTTP.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
#[cfg(feature = "tls")]
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
#[cfg(feature = "tls")]
use rustls::{ClientConfig, RootCertStore};

use crate::error::ExportError;
#[cfg(feature = "tls")]
use crate::error::ExportErrorKind;
use crate::runtime::Runtime;
#[cfg(feature = "tls")]
use crate::tls::Tls;

#[cfg(feature = "tls")]
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Connector = HttpConnector;

/// Sends on the runtime of telemetry, whatever thread asks, with the headers that the code adds.
#[derive(Debug)]
pub(crate) struct Client {
    inner: HyperClient<Connector>,
    runtime: Runtime,
    headers: HeaderMap,
}

impl Client {
    pub(crate) fn new(
        runtime: &Runtime,
        timeout: Duration,
        headers: &HeaderMap,
        #[cfg(feature = "tls")] tls: &Tls,
    ) -> Result<Self, ExportError> {
        let _entered = runtime.handle().enter();
        #[cfg(feature = "tls")]
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls.for_http()?)
            .https_or_http()
            .enable_http1()
            .build();
        #[cfg(not(feature = "tls"))]
        let connector = HttpConnector::new();
        let inner = HyperClient::new(connector, timeout, None);
        Ok(Self { inner, runtime: runtime.clone(), headers: headers.clone() })
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

#[cfg(feature = "tls")]
impl Tls {
    fn for_http(&self) -> Result<ClientConfig, ExportError> {
        let failed = |error: rustls::Error| ExportError::caused_by(ExportErrorKind::Configuration, error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(self.roots());
        let Some((certificate, key)) = &self.identity else { return Ok(config.with_no_client_auth()) };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).filter_map(Result::ok).collect();
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| ExportError::caused_by(ExportErrorKind::Configuration, error))?;
        config.with_client_auth_cert(chain, key).map_err(failed)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        match &self.authority {
            Some(authority) => {
                roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority).filter_map(Result::ok));
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        roots
    }
}

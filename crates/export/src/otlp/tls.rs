//! TLS as the code or the environment says.

use std::fs;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{ExportError, ExportErrorKind};
use crate::tls::Tls;

/// A file, and what names it: a variable, or a call.
pub(super) type Named = (String, String);

impl Tls {
    /// Reads the files. A certificate needs its key, and a key its certificate.
    pub(super) fn read(
        authority: Option<Named>,
        certificate: Option<Named>,
        key: Option<Named>,
    ) -> Result<Self, ExportError> {
        let authority = authority.map(|file| certificates(&file)).transpose()?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificates(&certificate)?, private_key(&key)?)),
            (None, None) => None,
            (Some((name, _)), None) => return Err(refused(&name, "the key of the certificate is missing")),
            (None, Some((name, _))) => return Err(refused(&name, "the certificate of the key is missing")),
        };
        Ok(Self { authority, identity })
    }

    #[cfg(feature = "otlp-grpc")]
    pub(super) fn for_grpc(&self) -> tonic::transport::ClientTlsConfig {
        use tonic::transport::{Certificate, ClientTlsConfig, Identity};

        let config = match &self.authority {
            Some(authority) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

fn certificates(file: &Named) -> Result<Vec<u8>, ExportError> {
    let text = content(file)?;
    match CertificateDer::pem_slice_iter(&text).next() {
        Some(Ok(_)) => Ok(text),
        _ => Err(refused(&file.0, &format!("`{}` has no certificate in PEM", file.1))),
    }
}

fn private_key(file: &Named) -> Result<Vec<u8>, ExportError> {
    let text = content(file)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(refused(&file.0, &format!("`{}` has no private key in PEM", file.1))),
    }
}

fn content((name, path): &Named) -> Result<Vec<u8>, ExportError> {
    fs::read(path).map_err(|error| refused(name, &format!("`{path}` cannot be read: {error}")))
}

fn refused(name: &str, why: &str) -> ExportError {
    ExportError::new(ExportErrorKind::Configuration, format!("{name}: {why}"))
}

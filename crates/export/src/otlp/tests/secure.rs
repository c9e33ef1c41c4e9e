//! Telemetry sent over TLS, to servers that are known and to others.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::receiver::Receiver;
use super::{build, span};
use crate::otlp::{Otlp, Protocol, otlp};
use crate::{ExportErrorKind, Setup};

/// A certificate that signs itself, with its key, in files.
struct Identified {
    certificate: String,
    key: String,
    folder: PathBuf,
}

impl Identified {
    fn new(name: &str) -> Self {
        let CertifiedKey::<KeyPair> { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!("throughline-tls-{}-{}", std::process::id(), unique(name)));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self { certificate: cert.pem(), key: signing_key.serialize_pem(), folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Identified {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A number that no other test has.
fn unique(name: &str) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// A server of HTTP over TLS that takes everything, and the paths it was asked for.
async fn https(server: &Identified, client: &Identified) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (address, paths) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let came = paths.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut read = vec![0; 64 * 1024];
            let Ok(length) = stream.read(&mut read).await else { continue };
            let text = String::from_utf8_lossy(&read[..length]).into_owned();
            came.lock().unwrap().extend(text.split_whitespace().nth(1).map(str::to_owned));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    (address, paths)
}

/// A server of gRPC over TLS.
fn grpcs(server: &Identified, client: &Identified) -> Receiver {
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&server.certificate, &server.key))
        .client_ca_root(Certificate::from_pem(&client.certificate));
    Receiver::start_with([], Server::builder().tls_config(tls).unwrap())
}

fn to(address: SocketAddr, protocol: Protocol) -> Setup<Otlp> {
    otlp().endpoint(format!("https://localhost:{}", address.port())).protocol(protocol).service_name("shop")
}

/// Returns how many of one span were exported and dropped.
async fn sent(setup: Setup<Otlp>, variables: &[(&str, &str)]) -> (u64, u64) {
    let variables: Vec<_> =
        variables.iter().copied().chain([("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")]).collect();
    let telemetry = build(setup, &variables);
    span(&telemetry);
    let report = telemetry.shutdown().await.unwrap();
    (report.exported_spans, report.dropped_spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_server_gets_spans_and_another_one_does_not() {
    let (server, client) = (Identified::new("localhost"), Identified::new("shop"));
    let (https, paths) = https(&server, &client).await;
    let grpcs = grpcs(&server, &client);
    for (address, protocol) in [(https, Protocol::HttpProtobuf), (grpcs.grpc, Protocol::Grpc)] {
        let known = || to(address, protocol).certificate(server.file("cert.pem"));
        let identified = known().client_certificate(client.file("cert.pem"), client.file("key.pem"));
        assert_eq!(sent(identified, &[]).await, (1, 0), "{protocol}");
        assert_eq!(sent(known(), &[]).await, (0, 1), "{protocol}: a client without a certificate");
        let stranger = to(address, protocol).client_certificate(client.file("cert.pem"), client.file("key.pem"));
        assert_eq!(sent(stranger, &[]).await, (0, 1), "{protocol}: a server that nobody knows");
        let [certificate, own, key] = [server.file("cert.pem"), client.file("cert.pem"), client.file("key.pem")];
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", certificate.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", own.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.as_str()),
        ];
        assert_eq!(sent(to(address, protocol), &variables).await, (1, 0), "{protocol}: by the environment");
    }
    assert_eq!(*paths.lock().unwrap(), ["/v1/traces", "/v1/traces"]);
    assert_eq!(grpcs.came().spans.len(), 2);
}

#[test]
fn files_that_cannot_be_used_are_errors_that_name_them() {
    let server = Identified::new("localhost");
    let (certificate, key) = (server.file("cert.pem"), server.file("key.pem"));
    for (setup, part) in [
        (otlp().certificate("/nowhere.pem"), "`/nowhere.pem` cannot be read"),
        (otlp().certificate(key.as_str()), "has no certificate in PEM"),
        (otlp().client_certificate(certificate.as_str(), certificate.as_str()), "has no private key in PEM"),
    ] {
        let error = setup.build_in(&|_| None).unwrap_err();
        assert_eq!(error.kind(), ExportErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
    let alone = |name: &str| (name == "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE").then(|| certificate.clone());
    let error = otlp().build_in(&alone).unwrap_err();
    assert!(error.to_string().starts_with("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: the key"), "{error}");
}

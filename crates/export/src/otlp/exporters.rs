//! The exporters of the signals, made as the settings say.

#[cfg(feature = "otlp-http")]
use opentelemetry_otlp::{Compression, LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};

#[cfg(feature = "otlp-grpc")]
use super::grpc::GrpcExporter;
#[cfg(feature = "otlp-http")]
use super::reader::Reader;
use super::settings::{Sending, Settings};
#[cfg(feature = "otlp-http")]
use crate::client::Client;
use crate::error::ExportError;
#[cfg(feature = "otlp-http")]
use crate::error::ExportErrorKind;
use crate::rejections::Rejections;
use crate::runtime::Runtime;

/// Makes exporters that send on one runtime, and note what the backend refuses.
#[derive(Debug)]
pub(super) struct Exporters {
    pub(super) settings: Settings,
    pub(super) runtime: Runtime,
}

impl Exporters {
    /// Of any signal.
    #[cfg(feature = "otlp-grpc")]
    pub(super) fn over_grpc(&self, sending: &Sending, rejections: &Rejections) -> Result<GrpcExporter, ExportError> {
        GrpcExporter::new(sending, self.settings.temporality, &self.runtime, rejections)
    }
}

#[cfg(feature = "otlp-http")]
impl Exporters {
    pub(super) fn spans(&self, rejections: &Rejections) -> Result<SpanExporter, ExportError> {
        self.over_http(SpanExporter::builder().with_http(), &self.settings.traces, rejections)?.build().map_err(refused)
    }

    pub(super) fn metrics(&self, rejections: &Rejections) -> Result<MetricExporter, ExportError> {
        let builder = MetricExporter::builder().with_temporality(self.settings.temporality).with_http();
        self.over_http(builder, &self.settings.metrics, rejections)?.build().map_err(refused)
    }

    pub(super) fn logs(&self, rejections: &Rejections) -> Result<LogExporter, ExportError> {
        self.over_http(LogExporter::builder().with_http(), &self.settings.logs, rejections)?.build().map_err(refused)
    }

    fn over_http<B>(&self, builder: B, sending: &Sending, rejections: &Rejections) -> Result<B, ExportError>
    where
        B: WithExportConfig + WithHttpConfig,
    {
        let protocol = match sending.protocol {
            super::Protocol::HttpJson => opentelemetry_otlp::Protocol::HttpJson,
            _ => opentelemetry_otlp::Protocol::HttpBinary,
        };
        let client = Client::new(
            &self.runtime,
            sending.timeout,
            &sending.headers,
            #[cfg(feature = "tls")]
            &sending.tls,
        )?;
        let builder = builder.with_endpoint(&sending.endpoint).with_timeout(sending.timeout).with_protocol(protocol);
        let builder = builder.with_http_client(Reader::new(client, rejections));
        Ok(if sending.gzip { builder.with_compression(Compression::Gzip) } else { builder })
    }
}

#[cfg(feature = "otlp-http")]
fn refused(error: opentelemetry_otlp::ExporterBuildError) -> ExportError {
    ExportError::new(ExportErrorKind::Configuration, format!("OTLP cannot be set up: {error}"))
}

//! The exporters of the signals, made as the settings say.

use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig,
};

use super::Protocol;
#[cfg(feature = "otlp-http")]
use super::answer::Reader;
use super::settings::{Sending, Settings};
use crate::error::{ExportError, ExportErrorKind};
use crate::rejections::Rejections;
use crate::runtime::Runtime;

/// Makes exporters that send on one runtime.
#[derive(Debug)]
pub(super) struct Exporters {
    pub(super) settings: Settings,
    pub(super) runtime: Runtime,
}

/// Makes the exporter of a signal: the builders of the three have no common type.
macro_rules! exporter {
    ($kind:ty, $exporters:expr, $sending:expr, $rejections:expr $(, $with:ident($value:expr))?) => {{
        let (exporters, sending): (&Exporters, &Sending) = ($exporters, $sending);
        match sending.protocol {
            #[cfg(feature = "otlp-grpc")]
            Protocol::Grpc => exporters.over_grpc(<$kind>::builder()$(.$with($value))?.with_tonic(), sending).build(),
            #[cfg(feature = "otlp-http")]
            Protocol::HttpProtobuf | Protocol::HttpJson => {
                exporters.over_http(<$kind>::builder()$(.$with($value))?.with_http(), sending, $rejections)?.build()
            }
        }
        .map_err(refused)
    }};
}

impl Exporters {
    pub(super) fn spans(&self, rejections: &Rejections) -> Result<SpanExporter, ExportError> {
        let _entered = self.runtime.handle().enter();
        exporter!(SpanExporter, self, &self.settings.traces, rejections)
    }

    pub(super) fn metrics(&self, rejections: &Rejections) -> Result<MetricExporter, ExportError> {
        let _entered = self.runtime.handle().enter();
        exporter!(MetricExporter, self, &self.settings.metrics, rejections, with_temporality(self.settings.temporality))
    }

    pub(super) fn logs(&self, rejections: &Rejections) -> Result<LogExporter, ExportError> {
        let _entered = self.runtime.handle().enter();
        exporter!(LogExporter, self, &self.settings.logs, rejections)
    }

    #[cfg(feature = "otlp-grpc")]
    fn over_grpc<B>(&self, builder: B, sending: &Sending) -> B
    where
        B: WithExportConfig + opentelemetry_otlp::WithTonicConfig,
    {
        let builder = builder.with_endpoint(&sending.endpoint).with_timeout(sending.timeout);
        #[cfg(feature = "tls")]
        let builder = if sending.endpoint.starts_with("http://") {
            builder
        } else {
            builder.with_tls_config(sending.tls.for_grpc())
        };
        let builder = builder.with_interceptor(add_headers(sending.headers.clone()));
        if sending.gzip { builder.with_compression(Compression::Gzip) } else { builder }
    }

    #[cfg(feature = "otlp-http")]
    fn over_http<B>(&self, builder: B, sending: &Sending, rejections: &Rejections) -> Result<B, ExportError>
    where
        B: WithExportConfig + opentelemetry_otlp::WithHttpConfig,
    {
        let protocol = match sending.protocol {
            Protocol::HttpJson => opentelemetry_otlp::Protocol::HttpJson,
            _ => opentelemetry_otlp::Protocol::HttpBinary,
        };
        let client = crate::client::Client::new(
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

/// Adds the headers to a request.
#[cfg(feature = "otlp-grpc")]
fn add_headers(
    headers: http::HeaderMap,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> + Clone + Send + Sync + 'static {
    move |mut request| {
        for (name, value) in &headers {
            request.metadata_mut().as_mut().insert(name, value.clone());
        }
        Ok(request)
    }
}

fn refused(error: ExporterBuildError) -> ExportError {
    ExportError::new(ExportErrorKind::Configuration, format!("OTLP cannot be set up: {error}"))
}

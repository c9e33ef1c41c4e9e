//! OTLP over HTTP.

use std::error::Error;
use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use flate2::read::MultiGzDecoder;
use http_body_util::LengthLimitError;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::answer::{Form, LARGEST_BODY, Problem};
use super::hold::Hold;
use super::signal::{Refused, Signal};

/// The paths of the three signals.
pub(super) fn routes(hold: Arc<Hold>) -> Router {
    Router::new()
        .route("/v1/traces", post(export::<ExportTraceServiceRequest>))
        .route("/v1/metrics", post(export::<ExportMetricsServiceRequest>))
        .route("/v1/logs", post(export::<ExportLogsServiceRequest>))
        .with_state(hold)
}

async fn export<S: Signal>(State(hold): State<Arc<Hold>>, headers: HeaderMap, body: Body) -> Response {
    let Some(form) = Form::of(&headers) else { return Problem::unknown_type().respond(Form::Json) };
    match keep::<S>(&hold, form, &headers, body).await {
        Ok(refused) => form.respond(StatusCode::OK, answer::<S>(form, refused)),
        Err(problem) => problem.respond(form),
    }
}

async fn keep<S: Signal>(hold: &Hold, form: Form, headers: &HeaderMap, body: Body) -> Result<Refused, Problem> {
    let is_packed = is_packed(headers)?;
    let body = to_bytes(body, LARGEST_BODY).await.map_err(|error| match error.source() {
        Some(source) if source.is::<LengthLimitError>() => Problem::too_large(),
        _ => Problem::unreadable("the body ended early"),
    })?;
    let body = if is_packed { unpacked(&body)? } else { body };
    let request = match form {
        Form::Binary => S::decode(body).map_err(|error| Problem::unreadable(error.to_string()))?,
        Form::Json => serde_json::from_slice(&body).map_err(|error| Problem::unreadable(error.to_string()))?,
    };
    Ok(S::keep(request, hold)?)
}

fn is_packed(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()).as_deref() {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(_) => Err(Problem::unknown_encoding()),
    }
}

/// Unpacks a body, as far as it may be long.
fn unpacked(body: &[u8]) -> Result<Bytes, Problem> {
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(body).take(LARGEST_BODY as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|error| Problem::unreadable(format!("the body is not gzip: {error}")))?;
    if unpacked.len() > LARGEST_BODY { Err(Problem::too_large()) } else { Ok(unpacked.into()) }
}

fn answer<S: Signal>(form: Form, refused: Refused) -> Vec<u8> {
    match form {
        Form::Binary => S::answer(refused).encode_to_vec(),
        Form::Json if refused.is_none() => b"{}".to_vec(),
        // Numbers of 64 bits are text in the JSON of protobuf.
        Form::Json => {
            let partial = serde_json::json!({S::REFUSED: refused.count.to_string(), "errorMessage": refused.reason});
            serde_json::json!({"partialSuccess": partial}).to_string().into_bytes()
        }
    }
}

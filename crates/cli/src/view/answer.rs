//! Answers to requests that are not taken.

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use prost::Message;
use tonic::Code;

use super::hold::Refusal;

/// The largest body that is taken, unpacked: that of gRPC where nobody says another one.
pub(super) const LARGEST_BODY: usize = 4 * 1024 * 1024;

/// How a body is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Binary,
    Json,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    status: StatusCode,
    code: Code,
    message: String,
}

/// What OTLP wants in the body of such an answer.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Form {
    /// What the header says; `None` if OTLP does not know it.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
        if kind.eq_ignore_ascii_case(Self::Binary.name()) {
            Some(Self::Binary)
        } else {
            kind.eq_ignore_ascii_case(Self::Json.name()).then_some(Self::Json)
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Binary => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// Returns a response with this body.
    pub(super) fn respond(self, status: StatusCode, body: impl Into<Body>) -> Response {
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.name()));
        response
    }
}

impl Problem {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, message)
    }

    pub(super) fn unknown_type() -> Self {
        let message = "the content type is neither application/x-protobuf nor application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message)
    }

    pub(super) fn unknown_encoding() -> Self {
        let message = "the content encoding is neither gzip nor identity";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message)
    }

    pub(super) fn unknown_place() -> Self {
        let message = "this is an OTLP receiver: POST to /v1/traces, /v1/metrics or /v1/logs";
        Self::new(StatusCode::NOT_FOUND, Code::Unimplemented, message)
    }

    pub(super) fn too_large() -> Self {
        let message = "the body is too large: at most 4 MiB are taken, unpacked; send smaller batches";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, message)
    }

    pub(super) fn too_slow() -> Self {
        let message = "the request did not come to its end in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, message)
    }

    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "there is no room for the moment; try again")
    }

    /// The answer over HTTP.
    pub(super) fn respond(self, form: Form) -> Response {
        let status = Status { code: self.code as i32, message: self.message };
        let body = match form {
            Form::Binary => status.encode_to_vec(),
            Form::Json => serde_json::json!({"code": status.code, "message": status.message}).to_string().into_bytes(),
        };
        let mut response = form.respond(self.status, body);
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// The answer over gRPC.
impl From<Problem> for tonic::Status {
    fn from(problem: Problem) -> Self {
        Self::new(problem.code, problem.message)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::busy(),
            Refusal::TooLarge => Self::too_large(),
        }
    }
}

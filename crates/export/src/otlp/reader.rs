//! Reads what a backend answers over HTTP to an export that it took.

use async_trait::async_trait;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use prost::Message;
use serde_json::Value;

use super::answer::Answer;
use crate::client::Client;
use crate::rejections::{Rejected, Rejections};

/// A client, and what the answers say. `opentelemetry-otlp` reads them too, and tells nobody.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    rejections: Rejections,
}

impl Reader {
    pub(super) fn new(client: Client, rejections: &Rejections) -> Self {
        Self { client, rejections: rejections.clone() }
    }
}

#[async_trait]
impl HttpClient for Reader {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.send_bytes(request).await?;
        if response.status() == StatusCode::OK {
            let kind = response.headers().get(CONTENT_TYPE);
            let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
            self.rejections.note(rejected(is_json, response.body()));
        }
        Ok(response)
    }
}

/// Reads an answer; one that cannot be read says nothing.
fn rejected(is_json: bool, body: &[u8]) -> Option<Rejected> {
    if is_json {
        let answer: Value = serde_json::from_slice(body).ok()?;
        let partial = &answer["partialSuccess"];
        let counts = ["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"].map(|name| number(&partial[name]));
        return Rejected::new(counts.into_iter().max()?, partial["errorMessage"].as_str().unwrap_or_default());
    }
    Answer::decode(body).ok()?.rejected()
}

/// A whole number of JSON as protobuf writes it: as text, or as a number.
fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::answer::PartialSuccess;
    use super::*;

    fn json(text: &str) -> Option<(u64, String)> {
        rejected(true, text.as_bytes()).map(|rejected| (rejected.count, rejected.why))
    }

    #[test]
    fn an_answer_is_read_in_either_format() {
        assert_eq!(
            json(r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too\nold"}}"#),
            Some((2, "too old".to_owned()))
        );
        assert_eq!(json(r#"{"partialSuccess":{"rejectedLogRecords":3}}"#), Some((3, String::new())));
        assert_eq!(json(r#"{"partialSuccess":{"rejectedDataPoints":-3}}"#), None);
        let partial_success = Some(PartialSuccess { rejected: 4, error_message: "x".repeat(1000) });
        let read = rejected(false, &Answer { partial_success }.encode_to_vec()).unwrap();
        assert_eq!((read.count, read.why.len()), (4, 200));
    }

    #[test]
    fn an_answer_that_says_nothing_or_cannot_be_read_is_none() {
        for text in ["", "{}", "null", "[1]", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":"all"}"#, "\u{1}"] {
            assert_eq!(json(text), None, "{text}");
            assert_eq!(rejected(false, text.as_bytes()), None, "{text}");
        }
        assert_eq!(rejected(false, &[0xff; 64]), None);
    }
}

//! Somebody who orders.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use throughline::{BoxError, Bytes};
use tokio::time::{Instant, sleep, timeout};

/// How long the storefront has for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a customer waits before asking again.
const PAUSE: Duration = Duration::from_millis(250);

/// What somebody orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Purchase {
    /// Whose order it is.
    pub tenant: &'static str,
    /// What is ordered.
    pub item: &'static str,
    /// How many of it.
    pub count: u32,
}

/// What the storefront says to a purchase.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It is an order, with this number.
    Taken(u64),
    /// It never will be one: there is no such thing.
    Refused,
}

/// Somebody who orders at a storefront, over HTTP.
#[derive(Clone, Debug)]
pub struct Customer {
    client: Client<HttpConnector, Full<Bytes>>,
    storefront: String,
}

impl Customer {
    /// Creates a customer of the storefront at this URL, such as `http://127.0.0.1:8080`.
    #[must_use]
    pub fn new(storefront: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, storefront: storefront.trim_end_matches('/').to_owned() }
    }

    /// Orders, and tries again while the storefront cannot take it.
    ///
    /// # Errors
    ///
    /// Fails when it was not taken within `patience`.
    pub async fn order(&self, purchase: Purchase, patience: Duration) -> Result<Answer, CustomerError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.try_to_order(purchase).await {
                Err(_) if Instant::now() < deadline => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn try_to_order(&self, purchase: Purchase) -> Result<Answer, CustomerError> {
        let Purchase { tenant, item, count } = purchase;
        let request = Request::post(format!("{}/orders", self.storefront))
            .header("x-tenant", tenant)
            .header("x-coupon", "spring")
            .body(Full::from(json!({"item": item, "count": count}).to_string()));
        match self.send(request.map_err(CustomerError::new)?).await? {
            (StatusCode::ACCEPTED, number) => number.parse().map(Answer::Taken).map_err(CustomerError::new),
            (StatusCode::NOT_FOUND, _) => Ok(Answer::Refused),
            (status, text) => Err(CustomerError::new(format!("it answered {status}: {text}"))),
        }
    }

    /// Returns how far an order has come, in the words of the storefront: `placed`, or how it ended.
    ///
    /// # Errors
    ///
    /// Fails when there is no answer, or no such order.
    pub async fn progress(&self, order: u64) -> Result<String, CustomerError> {
        let request = Request::get(format!("{}/orders/{order}", self.storefront)).body(Full::default());
        match self.send(request.map_err(CustomerError::new)?).await? {
            (StatusCode::OK, progress) => Ok(progress),
            (status, text) => Err(CustomerError::new(format!("it answered {status}: {text}"))),
        }
    }

    /// Asks for an order until it ends, and returns how.
    ///
    /// # Errors
    ///
    /// Fails when it is still under way after `patience`, or the storefront does not know of it.
    pub async fn end(&self, order: u64, patience: Duration) -> Result<String, CustomerError> {
        let deadline = Instant::now() + patience;
        loop {
            let progress = self.progress(order).await?;
            if progress != "placed" {
                return Ok(progress);
            }
            if Instant::now() >= deadline {
                return Err(CustomerError::new(format!("the order {order} is still under way after {patience:?}")));
            }
            sleep(PAUSE).await;
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), CustomerError> {
        let answer = async {
            let answer = self.client.request(request).await.map_err(CustomerError::new)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(CustomerError::new)?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        timeout(ANSWER_TIMEOUT, answer).await.map_err(CustomerError::new)?
    }
}

/// A storefront that did not do what a customer wanted.
#[derive(Debug, thiserror::Error)]
#[error("the storefront did not serve a customer")]
pub struct CustomerError {
    source: BoxError,
}

impl CustomerError {
    fn new(source: impl Into<BoxError>) -> Self {
        Self { source: source.into() }
    }
}

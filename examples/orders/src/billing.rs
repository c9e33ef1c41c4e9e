//! Says whose orders are taken, and invoices what is reserved.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use opentelemetry::baggage::BaggageExt;
use opentelemetry_http::HeaderExtractor;
use throughline::broker::Broker;
use throughline::extract::{Batch, Json, ProcessSpan, State as AppState};
use throughline::rabbit::Queue;
use throughline::serve::Serve;
use throughline::telemetry::Instrumentation;
use throughline::{App, CurrentBaggage, CurrentSpan, PublishError, Publisher, serve};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::messages::{NOTICES, Notice, RESERVED, Reserved};

/// The books of billing.
#[derive(Clone, Debug)]
pub struct Books {
    otel: Instrumentation,
    notices: Publisher,
    refused: Arc<HashSet<String>>,
    /// The orders that are invoiced: one that is reserved twice, such as after a crash of the warehouse, is not invoiced again.
    invoiced: Arc<Mutex<HashSet<u64>>>,
}

impl Books {
    /// Opens the books; `refused` are the customers who get no credit.
    pub fn new(otel: Instrumentation, notices: &impl Broker, refused: impl IntoIterator<Item = String>) -> Self {
        let notices = Publisher::new(notices).telemetry(&otel);
        Self { otel, notices, refused: Arc::new(refused.into_iter().collect()), invoiced: Arc::default() }
    }
}

/// Returns the service: reservations come over RabbitMQ, the question for credit over HTTP. NATS only takes notices.
pub fn service(rabbit: impl Broker, nats: impl Broker, books: Books, listener: TcpListener) -> Serve {
    let router = Router::new().route("/credit", get(credit)).with_state(books.clone());
    serve(rabbit, app(books)).and(nats, App::new()).alongside("http", |stop| async move {
        axum::serve(listener, router).with_graceful_shutdown(stop.requested()).await
    })
}

/// Returns what billing hears on RabbitMQ.
#[must_use]
pub fn app(books: Books) -> App {
    let otel = books.otel.clone();
    let reserved = Queue::new(RESERVED).batch(50, Duration::from_millis(100));
    App::new().subscribe(reserved, invoice).with_state(books).telemetry(otel)
}

/// Says whether the customer in the baggage of the request gets credit.
async fn credit(State(books): State<Books>, headers: HeaderMap) -> StatusCode {
    let context = books.otel.server_span("GET /credit", &HeaderExtractor(&headers));
    match context.baggage().get("tenant") {
        None => StatusCode::BAD_REQUEST,
        Some(tenant) if books.refused.contains(tenant.as_str()) => StatusCode::PAYMENT_REQUIRED,
        Some(_) => StatusCode::NO_CONTENT,
    }
}

/// Invoices a batch, each reservation in the trace of its own order.
async fn invoice(AppState(books): AppState<Books>, batch: Batch<Json<Reserved>>, span: ProcessSpan) {
    span.set_attribute("invoices", i64::try_from(batch.len()).unwrap_or(i64::MAX));
    for message in batch {
        let warehouse = message.get("warehouse").unwrap_or_default();
        message.clear(); // notices leave the house: no baggage goes with them
        let books = &books;
        message
            .run(async |Json(Reserved { order, cents })| {
                let mut invoiced = books.invoiced.lock().await;
                if !invoiced.contains(&order) {
                    let notice = Notice { order, cents: cents.saturating_mul(119) / 100, warehouse };
                    books.notices.publish(NOTICES, Json(notice)).id(format!("invoice-{order}")).await?;
                    invoiced.insert(order);
                }
                Ok::<_, PublishError>(())
            })
            .await;
    }
}

//! Takes orders over HTTP, and hears how they end.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use opentelemetry::context::FutureExt;
use opentelemetry_http::HeaderExtractor;
use serde::Deserialize;
use throughline::broker::{Broker, PublishErrorKind};
use throughline::extract::{Baggage, Json, State as AppState};
use throughline::kafka::Topic;
use throughline::nats::Stream;
use throughline::serve::Serve;
use throughline::telemetry::Instrumentation;
use throughline::{App, Delivery, Envelope, PublishError, Publisher, Settlement, serve};
use tokio::net::TcpListener;
use tracing::warn;

use crate::messages::{
    DEAD_ORDERS, NO_CREDIT, NOTICES, NOTICES_STREAM, Notice, ORDERS, OUT_OF_STOCK, Order, PRICES, Price, REDRIVEN,
    new_topic,
};

/// How long a customer waits for a price.
const PRICE_TIMEOUT: Duration = Duration::from_secs(2);

/// The desk of the storefront: its order book, and whom it talks to.
#[derive(Clone, Debug)]
pub struct Desk {
    otel: Instrumentation,
    orders: Publisher,
    prices: Publisher,
    redrive_after: Duration,
    next_id: Arc<AtomicU64>,
    book: Arc<Mutex<HashMap<u64, Progress>>>,
}

/// How far an order has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The storefront took it.
    Placed,
    /// It lies ready.
    Invoiced {
        /// The price with tax, in cents.
        cents: u32,
        /// Where it lies.
        warehouse: String,
    },
    /// It was given up, for this reason.
    Cancelled(String),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed => f.write_str("placed"),
            Self::Invoiced { cents, warehouse } => write!(f, "invoiced: {cents} cents, ready at {warehouse}"),
            Self::Cancelled(why) => write!(f, "cancelled: {why}"),
        }
    }
}

impl Desk {
    /// Opens the desk. A dead letter whose cause may pass goes back to the warehouse after `redrive_after`, once.
    pub fn new(otel: Instrumentation, orders: &impl Broker, prices: &impl Broker, redrive_after: Duration) -> Self {
        let micros = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        Self {
            orders: Publisher::new(orders).telemetry(&otel),
            prices: Publisher::new(prices).telemetry(&otel),
            otel,
            redrive_after,
            next_id: Arc::new(AtomicU64::new(u64::try_from(micros).unwrap_or_default())),
            book: Arc::default(),
        }
    }

    /// Returns how far an order has come.
    #[must_use]
    pub fn progress(&self, order: u64) -> Option<Progress> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).get(&order).cloned()
    }

    fn note(&self, order: u64, progress: Progress) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).insert(order, progress);
    }

    async fn order(&self, Wish { item, count }: Wish) -> Result<u64, PlaceError> {
        let asking = self.prices.request::<Json<Price>>(PRICES, item.clone());
        let Json(Price { cents }) = asking.timeout(PRICE_TIMEOUT).await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.note(id, Progress::Placed);
        let order = Order { id, item, count, cents };
        self.orders.publish(ORDERS, Json(order)).key(id.to_string()).id(id.to_string()).await?;
        Ok(id)
    }
}

/// Returns the service: customers come over HTTP, dead letters over Kafka, notices over NATS. RabbitMQ only takes requests.
pub fn service(kafka: impl Broker, rabbit: impl Broker, nats: impl Broker, desk: Desk, listener: TcpListener) -> Serve {
    let router =
        Router::new().route("/orders", post(place)).route("/orders/{id}", get(progress)).with_state(desk.clone());
    let service = serve(kafka, dead_orders(desk.clone())).and(rabbit, App::new()).and(nats, notices(desk));
    service.alongside("http", |stop| async move {
        axum::serve(listener, router).with_graceful_shutdown(stop.requested()).await
    })
}

/// Returns what the storefront hears on Kafka: orders that were given up.
#[must_use]
pub fn dead_orders(desk: Desk) -> App {
    let otel = desk.otel.clone();
    let dead = Topic::new(DEAD_ORDERS).group("storefront").declare(new_topic());
    App::new().subscribe(dead, redrive).with_state(desk).telemetry(otel)
}

/// Returns what the storefront hears on NATS: what customers are told.
#[must_use]
pub fn notices(desk: Desk) -> App {
    let otel = desk.otel.clone();
    let notices = Stream::new(NOTICES_STREAM).subjects([NOTICES]).durable("storefront").filter(NOTICES);
    App::new().subscribe(notices, tell).with_state(desk).telemetry(otel)
}

/// What a customer wishes, as the body of a request.
#[derive(Deserialize)]
struct Wish {
    item: String,
    count: u32,
}

/// Takes an order. Here the trace starts, and the baggage: what a stranger sends of either counts for nothing.
async fn place(State(desk): State<Desk>, headers: HeaderMap, body: String) -> Result<(StatusCode, String), PlaceError> {
    let context = desk.otel.server_span("POST /orders", &HeaderExtractor(&headers));
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut start = Baggage::new().with("tenant", text("x-tenant").unwrap_or("guest"));
    if let Some(coupon) = text("x-coupon") {
        start = start.with("coupon", coupon);
    }
    let placing = async {
        let wish = serde_json::from_str(&body).map_err(PlaceError::NoWish)?;
        start.scope(desk.order(wish)).await
    };
    placing.with_context(context).await.map(|id| (StatusCode::ACCEPTED, id.to_string()))
}

/// Says how far an order has come.
async fn progress(State(desk): State<Desk>, Path(id): Path<u64>) -> (StatusCode, String) {
    match desk.progress(id) {
        Some(progress) => (StatusCode::OK, progress.to_string()),
        None => (StatusCode::NOT_FOUND, "no such order".to_owned()),
    }
}

/// Tells the customer.
async fn tell(AppState(desk): AppState<Desk>, Json(notice): Json<Notice>) {
    desk.note(notice.order, Progress::Invoiced { cents: notice.cents, warehouse: notice.warehouse });
}

/// Sends a dead letter back once, where its cause may have passed meanwhile; else the order is cancelled.
async fn redrive(
    AppState(desk): AppState<Desk>,
    delivery: Delivery,
    Json(order): Json<Order>,
) -> Result<Option<Envelope>, Settlement> {
    let cause = delivery.header("dead-letter-error").unwrap_or_default();
    if delivery.header(REDRIVEN).is_some() || [NO_CREDIT, OUT_OF_STOCK].contains(&cause) {
        warn!(order = order.id, cause, "an order is cancelled");
        desk.note(order.id, Progress::Cancelled(cause.to_owned()));
        return Ok(None);
    }
    if delivery.attempt() == 1 {
        return Err(Settlement::retry_after(desk.redrive_after));
    }
    Ok(Some(Envelope::forward(&delivery, ORDERS).with_header(REDRIVEN, "yes")))
}

/// Says why an order is not taken.
#[derive(Debug)]
enum PlaceError {
    /// The body of the request is no wish.
    NoWish(serde_json::Error),
    /// The warehouse does not have such a thing.
    UnknownItem,
    /// The price or the order did not get through.
    Unavailable,
}

impl From<PublishError> for PlaceError {
    fn from(error: PublishError) -> Self {
        let code = error.error_reply().and_then(|reply| reply.code());
        if error.kind() == PublishErrorKind::RequestFailed && code == Some(404) {
            return Self::UnknownItem;
        }
        warn!(error = %error, "an order was not taken");
        Self::Unavailable
    }
}

impl IntoResponse for PlaceError {
    fn into_response(self) -> Response {
        match self {
            Self::NoWish(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
            Self::UnknownItem => (StatusCode::NOT_FOUND, "no such item").into_response(),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "please try again").into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use throughline::Headers;
    use throughline_memory::Memory;
    use throughline_testing::Capture;

    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn dead(cause: &'static str, redriven: bool) -> Delivery {
        let order = Order { id: 7, item: "lamp".to_owned(), count: 1, cents: 1_900 };
        let mut headers = Headers::from_iter([("dead-letter-error", cause)]);
        if redriven {
            headers.insert(REDRIVEN, "yes");
        }
        Delivery::new(DEAD_ORDERS, serde_json::to_vec(&order).unwrap()).with_headers(headers)
    }

    fn desk() -> Desk {
        Desk::new(Capture::new().instrumentation().build(), &Memory::new(), &Memory::new(), AFTER)
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_letter_goes_back_once_and_only_where_its_cause_may_pass() {
        for (cause, redriven, goes_back) in
            [("shelf_busy", false, true), ("shelf_busy", true, false), (NO_CREDIT, false, false)]
        {
            let desk = desk();
            let test = throughline_testing::start(dead_orders(desk.clone())).await;
            let begun = tokio::time::Instant::now();
            test.broker().deliver(dead(cause, redriven));
            test.settle().await;

            let cancelled = Progress::Cancelled(cause.to_owned());
            assert_eq!(desk.progress(7), (!goes_back).then_some(cancelled), "{cause}");
            assert_eq!(begun.elapsed() >= AFTER, goes_back, "{cause}");
            if goes_back {
                assert_eq!(test.next_delivery(ORDERS).await.header(REDRIVEN), Some("yes"));
            }
        }
    }
}

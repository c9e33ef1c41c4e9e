//! Says what items cost, and reserves what is ordered.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use throughline::broker::Broker;
use throughline::extract::{Baggage, Json, ProcessSpan, State};
use throughline::kafka::Topic;
use throughline::rabbit::Queue;
use throughline::serve::Serve;
use throughline::telemetry::Instrumentation;
use throughline::{App, CurrentBaggage, CurrentSpan, Failure, Handler, PublishError, Publisher, RetryPolicy, serve};

use crate::http::{Client, ClientError};
use crate::messages::{
    DEAD_ORDERS, NO_CREDIT, ORDERS, OUT_OF_STOCK, Order, PRICES, Price, RESERVED, Reserved, new_topic,
};

/// A shelf of the warehouse.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The price of an item, in cents.
    pub cents: u32,
    /// How many items lie there.
    pub items: u32,
    /// How often somebody who looks finds the shelf being counted.
    pub counts: u32,
}

/// The warehouse: its shelves, and whom it talks to.
#[derive(Clone, Debug)]
pub struct Warehouse {
    otel: Instrumentation,
    tracer: SdkTracer,
    reserved: Publisher,
    credit: Client,
    stock: Arc<Mutex<Stock>>,
}

#[derive(Debug)]
struct Stock {
    shelves: HashMap<String, Shelf>,
    /// The orders that have their items: one that comes again takes no more.
    served: HashSet<u64>,
}

impl Warehouse {
    /// Creates a warehouse; its own spans go to `tracer`, and what it has reserved goes to `reserved`.
    pub fn new(
        otel: Instrumentation,
        tracer: SdkTracer,
        reserved: &impl Broker,
        credit: Client,
        shelves: impl IntoIterator<Item = (&'static str, Shelf)>,
    ) -> Self {
        let shelves = shelves.into_iter().map(|(item, shelf)| (item.to_owned(), shelf)).collect();
        let stock = Arc::new(Mutex::new(Stock { shelves, served: HashSet::new() }));
        let reserved = Publisher::new(reserved).telemetry(&otel);
        Self { otel, tracer, reserved, credit, stock }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the items off the shelf, in a span of its own under the span of the order.
    fn take(&self, order: &Order) -> Result<(), ReserveError> {
        self.tracer.in_span("take off the shelf", |context| {
            let span = context.span();
            span.set_attribute(KeyValue::new("item", order.item.clone()));
            let mut stock = self.stock();
            if stock.served.contains(&order.id) {
                return Ok(());
            }
            let shelf = stock.shelves.get_mut(&order.item).ok_or(ReserveError::OutOfStock)?;
            if shelf.counts > 0 {
                shelf.counts -= 1;
                span.add_event("the shelf is being counted", vec![KeyValue::new("items", i64::from(shelf.items))]);
                return Err(ReserveError::ShelfBusy);
            }
            shelf.items = shelf.items.checked_sub(order.count).ok_or(ReserveError::OutOfStock)?;
            stock.served.insert(order.id);
            Ok(())
        })
    }

    async fn check_credit(&self, span: &ProcessSpan) -> Result<(), ReserveError> {
        let status = self.credit.get(span).await.map_err(ReserveError::Billing)?;
        if status.is_success() { Ok(()) } else { Err(ReserveError::NoCredit) }
    }
}

/// Returns the service: orders come over Kafka, requests for prices over RabbitMQ.
pub fn service(kafka: impl Broker, rabbit: impl Broker, warehouse: Warehouse) -> Serve {
    serve(kafka, orders(warehouse.clone())).and(rabbit, prices(warehouse))
}

/// Returns what the warehouse hears on Kafka: orders, each tried three times and then given up.
#[must_use]
pub fn orders(warehouse: Warehouse) -> App {
    let otel = warehouse.otel.clone();
    let placed = Topic::new(ORDERS).group("warehouse").declare(new_topic());
    let policy = RetryPolicy::new().attempts(3).first_delay(Duration::from_millis(100));
    App::new().subscribe(placed, reserve.retry(policy).dead_letter(DEAD_ORDERS)).with_state(warehouse).telemetry(otel)
}

/// Returns what the warehouse hears on RabbitMQ: requests for prices.
#[must_use]
pub fn prices(warehouse: Warehouse) -> App {
    let otel = warehouse.otel.clone();
    App::new().subscribe(Queue::new(PRICES), price).with_state(warehouse).telemetry(otel)
}

/// Answers a request for a price.
async fn price(State(warehouse): State<Warehouse>, item: String) -> Result<Json<Price>, Failure> {
    match warehouse.stock().shelves.get(&item) {
        Some(shelf) => Ok(Json(Price { cents: shelf.cents })),
        None => Err(Failure::new("unknown_item", "there is no shelf for it").with_answer(404, "no such item")),
    }
}

/// Reserves what was ordered and hands it to billing.
async fn reserve(
    State(warehouse): State<Warehouse>,
    Json(order): Json<Order>,
    span: ProcessSpan,
    baggage: Baggage,
) -> Result<(), Failure> {
    span.set_attribute("order", order.id.cast_signed());
    span.set_attribute("order.items", i64::from(order.count));
    warehouse.check_credit(&span).await?;
    warehouse.take(&order)?;
    span.add_event("reserved", [KeyValue::new("warehouse", "north")]);
    baggage.set("warehouse", "north"); // what is published from here on carries it
    baggage.remove("coupon"); // and no longer this
    let reserved = Reserved { order: order.id, cents: order.cents.saturating_mul(order.count) };
    warehouse.reserved.publish(RESERVED, Json(reserved)).await.map_err(ReserveError::NotPublished)?;
    Ok(())
}

/// Says why an order is not reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Billing did not answer.
    #[error("billing does not say whether the customer gets credit")]
    Billing(#[source] ClientError),
    /// Billing said no.
    #[error("the customer gets no credit")]
    NoCredit,
    /// The reservation was not published.
    #[error("the reservation was not published")]
    NotPublished(#[source] PublishError),
    /// There are not so many items.
    #[error("there are not so many on the shelf")]
    OutOfStock,
    /// The shelf is being counted.
    #[error("the shelf is being counted")]
    ShelfBusy,
}

impl From<ReserveError> for Failure {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::Billing(_) => Self::new("billing", error),
            ReserveError::NoCredit => Self::new(NO_CREDIT, error).permanent(),
            ReserveError::NotPublished(_) => Self::new("not_published", error),
            ReserveError::OutOfStock => Self::new(OUT_OF_STOCK, error).permanent(),
            ReserveError::ShelfBusy => Self::new("shelf_busy", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use throughline::broker::PublishErrorKind;
    use throughline_memory::Memory;
    use throughline_testing::Capture;

    use super::*;

    #[tokio::test]
    async fn a_price_is_told_and_an_unknown_item_is_an_answer_too() {
        let capture = Capture::new();
        let tracer = capture.tracer_provider().tracer("warehouse");
        let credit = Client::new(Default::default());
        let shelves = [("lamp", Shelf { cents: 1_900, items: 1, counts: 0 })];
        let otel = capture.instrumentation().build();
        let test =
            throughline_testing::start(prices(Warehouse::new(otel, tracer, &Memory::new(), credit, shelves))).await;

        let Json(price) = test.publisher().request::<Json<Price>>(PRICES, "lamp").await.unwrap();
        assert_eq!(price.cents, 1_900);
        let error = test.publisher().request::<Json<Price>>(PRICES, "unicorn").await.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::RequestFailed);
        assert_eq!(error.error_reply().and_then(|reply| reply.code()), Some(404));
    }
}

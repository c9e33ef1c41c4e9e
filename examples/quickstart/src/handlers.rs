//! What the services do. Nothing here knows a broker, a header or an acknowledgement.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::{TraceContextExt, Tracer};
use opentelemetry_sdk::trace::SdkTracer;
use throughline::extract::{Baggage, Batch, Json, ProcessSpan, State};
use throughline::{CurrentBaggage, CurrentSpan, Headers};
use tokio::sync::mpsc::UnboundedSender;

use crate::orders::{InvoiceCreated, NotReserved, OrderPlaced, StockReserved};

/// The state of the service `stock`.
#[derive(Clone, Debug)]
pub struct Warehouses {
    tracer: SdkTracer,
    counted: Arc<Mutex<HashSet<u32>>>,
}

impl Warehouses {
    /// Creates the warehouses; their own spans go to this tracer.
    #[must_use]
    pub fn new(tracer: SdkTracer) -> Self {
        Self { tracer, counted: Arc::default() }
    }

    /// Finds the warehouse that has the item, in a span of its own under the span of the message.
    fn find(&self, order: &OrderPlaced) -> Result<&'static str, NotReserved> {
        self.tracer.in_span("find on the shelves", |context| {
            context.span().set_attribute(KeyValue::new("item", order.item.clone()));
            match order.item.as_str() {
                "lamp" => Ok("north"),
                "chair" if self.is_counted(order.id) => Ok("south"),
                "chair" => Err(NotReserved::ShelfBusy(order.item.clone())),
                _ => Err(NotReserved::OutOfStock(order.item.clone())),
            }
        })
    }

    /// Tells whether somebody asked for this order before: the first time the shelf is still being counted.
    fn is_counted(&self, order: u32) -> bool {
        !self.counted.lock().unwrap_or_else(PoisonError::into_inner).insert(order)
    }
}

/// Reserves what was ordered; the answer goes to `stock.reserved`.
pub async fn reserve(
    State(warehouses): State<Warehouses>,
    Json(order): Json<OrderPlaced>,
    span: ProcessSpan,
    baggage: Baggage,
) -> Result<Json<StockReserved>, NotReserved> {
    let warehouse = warehouses.find(&order)?;
    span.set_attribute("items", i64::from(order.count));
    baggage.set("warehouse", warehouse); // what this handler publishes from here on carries it
    Ok(Json(StockReserved { order: order.id, cents: 1_900 * order.count }))
}

/// Invoices a batch; each invoice goes to `invoices.created`, in the trace of its own order.
pub async fn invoice(batch: Batch<Json<StockReserved>>, span: ProcessSpan, baggage: Baggage) {
    span.set_attribute("conflicts", baggage.conflicts().join(","));
    for message in batch {
        message
            .run(async |Json(reserved)| {
                Json(InvoiceCreated { order: reserved.order, cents: reserved.cents * 119 / 100 })
            })
            .await;
    }
}

/// The state of the service `shop`: where the story is told how an order ended.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Receives the end of each order.
    pub ends: UnboundedSender<End>,
}

/// Says how an order ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End {
    /// The number of the order.
    pub order: u32,
    /// What became of it, for people.
    pub text: String,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}: {}", self.order, self.text)
    }
}

impl Desk {
    fn close(&self, order: u32, text: String) {
        // Nobody listens any more once the story is over.
        let _ = self.ends.send(End { order, text });
    }
}

/// Tells the customer; the last link of the chain.
pub async fn notify(State(desk): State<Desk>, Json(invoice): Json<InvoiceCreated>, baggage: Baggage) {
    let of = |key| baggage.get(key).unwrap_or_else(|| "?".to_owned());
    let euros = f64::from(invoice.cents) / 100.0;
    let text = format!("invoiced, {euros:.2} EUR, tenant {}, warehouse {}", of("tenant"), of("warehouse"));
    desk.close(invoice.order, text);
}

/// Tells why an order was given up.
pub async fn explain(State(desk): State<Desk>, Json(order): Json<OrderPlaced>, headers: Headers) {
    let of = |name| headers.get(name).unwrap_or("?");
    let text = format!("in the dead letter, from {}: {}", of("dead-letter-origin"), of("dead-letter-reason"));
    desk.close(order.id, text);
}

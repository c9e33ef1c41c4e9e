//! Serves the three apps, places the orders, and waits until each of them has come to an end.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use throughline::broker::Broker;
use throughline::extract::{Baggage, Json};
use throughline::telemetry::Instrumentation;
use throughline::{App, PublishError, Publisher, serve};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::handlers::{Desk, End, Warehouses};
use crate::orders::OrderPlaced;
use crate::services::{self, Subscriptions};

/// How long the orders may take, all together.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a service has of its own: its connection, and the providers that know its name.
#[derive(Clone, Debug)]
pub struct Service<B> {
    /// The connection.
    pub broker: B,
    /// Where its spans go.
    pub tracers: SdkTracerProvider,
    /// Where its metrics go.
    pub meters: SdkMeterProvider,
}

/// The three services of the story.
#[derive(Clone, Debug)]
pub struct Cast<B> {
    /// Places the orders and hears how they ended.
    pub shop: Service<B>,
    /// Reserves.
    pub stock: Service<B>,
    /// Invoices.
    pub billing: Service<B>,
}

impl<B: Broker> Service<B> {
    fn engine(&self) -> Instrumentation {
        Instrumentation::builder()
            .tracer_provider(self.tracers.clone())
            .meter_provider(&self.meters)
            .error_descriptions(true) // nothing private is in these errors
            .build()
    }

    fn traced(&self, app: App) -> App {
        app.telemetry(self.engine())
    }
}

/// Plays the story and returns how the orders ended; `tell` hears of each at once.
///
/// # Errors
///
/// Fails when a service cannot start or stop, an order cannot be placed, or the deadline passes.
pub async fn play<B: Broker>(
    cast: Cast<B>,
    from: Subscriptions,
    tell: impl Fn(&End),
) -> Result<Vec<End>, Box<dyn Error + Send + Sync>> {
    let (ends, mut ended) = unbounded_channel();
    let shop = cast.shop.traced(services::shop(from.invoiced, from.dead, Desk { ends }));
    let warehouses = Warehouses::new(cast.stock.tracers.tracer("quickstart"));
    let stock = cast.stock.traced(services::stock(from.placed, warehouses));
    let billing = cast.billing.traced(services::billing(from.reserved));

    let publisher = Publisher::new(&cast.shop.broker).telemetry(cast.shop.engine());
    let shop = serve(cast.shop.broker, shop).start().await?;
    // Before stock, whose replies it takes: where a service declares its own queue, nobody else has.
    let billing = serve(cast.billing.broker, billing).start().await?;
    let stock = serve(cast.stock.broker, stock).start().await?;

    let orders = orders();
    for order in &orders {
        place(&publisher, order).await?;
    }
    let ends = wait_for(&orders, &mut ended, tell).await;
    for service in [stock, billing, shop] {
        service.shutdown().await?;
    }
    Ok(ends?)
}

/// Returns the orders of the story: the first goes through at once, the second at the second attempt, the third not at all.
#[must_use]
pub fn orders() -> Vec<OrderPlaced> {
    let order = |id, item: &str, count| OrderPlaced { id, item: item.to_owned(), count };
    vec![order(42, "lamp", 1), order(43, "chair", 4), order(44, "unicorn", 1)]
}

/// Places an order.
///
/// # Errors
///
/// Fails when it cannot be published.
pub async fn place(publisher: &Publisher, order: &OrderPlaced) -> Result<(), PublishError> {
    let start = Baggage::new().with("tenant", "acme"); // everything behind this order carries it
    start.scope(publisher.publish("orders.placed", Json(order)).id(format!("order-{}", order.id))).await?;
    Ok(())
}

async fn wait_for(
    orders: &[OrderPlaced],
    ended: &mut UnboundedReceiver<End>,
    tell: impl Fn(&End),
) -> Result<Vec<End>, String> {
    let mut open: BTreeSet<u32> = orders.iter().map(|order| order.id).collect();
    let mut ends = Vec::new();
    let all = async {
        while !open.is_empty() {
            let Some(end) = ended.recv().await else { return };
            if open.remove(&end.order) {
                tell(&end);
                ends.push(end);
            }
        }
    };
    let in_time = timeout(DEADLINE, all).await.is_ok();
    match (in_time, open.is_empty()) {
        (_, true) => Ok(ends),
        (true, false) => Err(format!("the shop stopped before these orders came to an end: {open:?}")),
        (false, false) => Err(format!("these orders did not come to an end within {DEADLINE:?}: {open:?}")),
    }
}

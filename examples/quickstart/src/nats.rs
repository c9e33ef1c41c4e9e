//! NATS: one stream of JetStream for everything, so that nothing is lost and what fails can come again.

use std::error::Error;
use std::time::Duration;

use throughline::nats::{Nats, Stream};

use crate::services::Subscriptions;

const STREAM: &str = "QUICKSTART";

/// Returns what the services subscribe to; the first that does creates the stream.
#[must_use]
pub fn subscriptions() -> Subscriptions {
    let stream = |durable: &'static str, filter: &'static str| {
        Stream::new(STREAM).subjects(["orders.>", "stock.>", "invoices.>"]).durable(durable).filter(filter)
    };
    Subscriptions {
        placed: stream("stock", "orders.placed").into(),
        reserved: stream("billing", "stock.reserved").batch(2, Duration::from_secs(10)).into(),
        invoiced: stream("shop", "invoices.created").into(),
        dead: stream("shop-dead", "orders.dead").into(),
    }
}

/// Connects one service. Plain destinations are subjects of streams: a publish returns when the server has stored the message.
///
/// # Errors
///
/// Fails when no server answers at the address.
pub async fn connect(url: &str) -> Result<Nats, Box<dyn Error + Send + Sync>> {
    Ok(Nats::connect(url).await?.publish_to_streams())
}

/// Removes the stream, if it is there: what an interrupted run left is not part of the story.
///
/// # Errors
///
/// Fails when the server does not answer, or refuses.
pub async fn clean_up(nats: &Nats) -> Result<(), Box<dyn Error + Send + Sync>> {
    if nats.jetstream().get_stream(STREAM).await.is_ok() {
        nats.jetstream().delete_stream(STREAM).await?;
    }
    Ok(())
}

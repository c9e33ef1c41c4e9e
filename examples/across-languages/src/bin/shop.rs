//! Places three orders: `cargo run -p across-languages --bin shop`.

use std::env;
use std::error::Error;

use serde::Serialize;
use throughline::extract::{Baggage, Json};
use throughline::nats::Nats;
use throughline::{Publisher, export};

#[derive(Serialize)]
struct Order {
    id: u64,
    item: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // To http://localhost:4318, unless OTEL_EXPORTER_OTLP_ENDPOINT says otherwise.
    let telemetry = export::from_env().service_name("shop").baggage_attributes(["tenant"]).start()?;
    let nats = Nats::connect(&server()).await?;
    let publisher = Publisher::new(&nats);
    for (id, item) in [(42, "lamp"), (43, "chair"), (44, "unicorn")] {
        let start = Baggage::new().with("tenant", "acme");
        start.scope(publisher.publish("orders.placed", Json(Order { id, item }))).await?;
    }
    println!("{}", telemetry.shutdown().await?);
    Ok(())
}

/// Where the NATS server is.
fn server() -> String {
    env::var("NATS_URL").unwrap_or_else(|_| "nats://localhost:4222".to_owned())
}

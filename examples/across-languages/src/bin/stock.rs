//! Reserves what is ordered: `cargo run -p across-languages --bin stock`, until Ctrl-C.

use std::env;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throughline::extract::Json;
use throughline::nats::{Nats, Subject};
use throughline::{App, Handler, Settlement, export, serve};
use tracing::warn;

#[derive(Deserialize)]
struct Order {
    id: u64,
    item: String,
}

#[derive(Serialize)]
struct Reserved {
    order: u64,
}

async fn reserve(Json(order): Json<Order>) -> Result<Json<Reserved>, Settlement> {
    tokio::time::sleep(Duration::from_millis(12)).await; // a walk to the shelves
    match order.item.as_str() {
        "unicorn" => return Err(Settlement::reject("no warehouse has it")),
        "chair" => warn!("only 3 chairs are left"),
        _ => (),
    }
    Ok(Json(Reserved { order: order.id }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = export::from_env()
        .service_name("stock")
        .baggage_attributes(["tenant"])
        .logging(export::Logging::text())
        .start()?;
    let orders = Subject::new("orders.placed").queue_group("stock");
    let app = App::new().subscribe(orders, reserve.reply_to("stock.reserved"));
    serve(Nats::connect(&server()).await?, app).with_signals().await?;
    println!("{}", telemetry.shutdown().await?);
    Ok(())
}

/// Where the NATS server is.
fn server() -> String {
    env::var("NATS_URL").unwrap_or_else(|_| "nats://localhost:4222".to_owned())
}

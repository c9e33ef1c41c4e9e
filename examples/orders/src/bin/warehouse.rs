//! Reserves what is ordered: `cargo run -p orders --bin warehouse`, until Ctrl-C.

use std::error::Error;
use std::net::SocketAddr;

use http::Uri;
use opentelemetry::trace::TracerProvider;
use orders::config::{setting, with_telemetry};
use orders::http::{Client, spawn_probes};
use orders::warehouse::{Shelf, Warehouse, service};
use throughline::kafka::Kafka;
use throughline::rabbit::Rabbit;
use throughline::telemetry::Instrumentation;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    with_telemetry("warehouse", async |telemetry| {
        let probes: SocketAddr = setting("PROBES_ADDRESS", "127.0.0.1:9081")?;
        let credit: Uri = setting("CREDIT_URL", "http://127.0.0.1:8082/credit")?;
        let kafka = Kafka::connect(setting::<String>("KAFKA_BROKERS", "localhost:9092")?).await?;
        let rabbit = Rabbit::connect(setting::<String>("RABBIT_URL", "amqp://localhost")?).await?;

        let (otel, tracer) = (Instrumentation::from_globals(), telemetry.tracer_provider().tracer("warehouse"));
        let warehouse = Warehouse::new(otel, tracer, &rabbit, Client::new(credit), shelves());
        let service = service(kafka, rabbit, warehouse).with_signals();
        spawn_probes(TcpListener::bind(probes).await?, service.health());
        Ok(service.await?)
    })
    .await
}

/// The first who wants a chair comes twice, the first who wants a piano by the dead letter.
fn shelves() -> [(&'static str, Shelf); 3] {
    [
        ("lamp", Shelf { cents: 1_900, items: 100_000, counts: 0 }),
        ("chair", Shelf { cents: 4_900, items: 100_000, counts: 1 }),
        ("piano", Shelf { cents: 490_000, items: 10, counts: 3 }),
    ]
}

//! Takes orders over HTTP: `cargo run -p orders --bin storefront`, until Ctrl-C.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use orders::config::{setting, with_telemetry};
use orders::http::spawn_probes;
use orders::storefront::{Desk, service};
use throughline::kafka::Kafka;
use throughline::nats::Nats;
use throughline::rabbit::Rabbit;
use throughline::telemetry::Instrumentation;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    with_telemetry("storefront", async |_| {
        let address: SocketAddr = setting("HTTP_ADDRESS", "127.0.0.1:8080")?;
        let probes: SocketAddr = setting("PROBES_ADDRESS", "127.0.0.1:9080")?;
        let redrive_after = Duration::from_secs(setting("REDRIVE_AFTER_SECONDS", "60")?);
        let kafka = Kafka::connect(setting::<String>("KAFKA_BROKERS", "localhost:9092")?).await?;
        let rabbit = Rabbit::connect(setting::<String>("RABBIT_URL", "amqp://localhost")?).await?;
        let nats = Nats::connect(setting::<String>("NATS_URL", "localhost:4222")?).await?;

        let desk = Desk::new(Instrumentation::from_globals(), &kafka, &rabbit, redrive_after);
        let service = service(kafka, rabbit, nats, desk, TcpListener::bind(address).await?).with_signals();
        spawn_probes(TcpListener::bind(probes).await?, service.health());
        Ok(service.await?)
    })
    .await
}

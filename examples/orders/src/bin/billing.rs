//! Invoices what is reserved: `cargo run -p orders --bin billing`, until Ctrl-C.

use std::error::Error;
use std::net::SocketAddr;

use orders::billing::{Books, service};
use orders::config::{setting, with_telemetry};
use orders::http::spawn_probes;
use throughline::nats::Nats;
use throughline::rabbit::Rabbit;
use throughline::telemetry::Instrumentation;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    with_telemetry("billing", async |_| {
        let address: SocketAddr = setting("HTTP_ADDRESS", "127.0.0.1:8082")?;
        let probes: SocketAddr = setting("PROBES_ADDRESS", "127.0.0.1:9082")?;
        let refused: String = setting("NO_CREDIT", "initech")?;
        let rabbit = Rabbit::connect(setting::<String>("RABBIT_URL", "amqp://localhost")?).await?;
        let nats = Nats::connect(setting::<String>("NATS_URL", "localhost:4222")?).await?.publish_to_streams();

        let books = Books::new(Instrumentation::from_globals(), &nats, refused.split(',').map(ToOwned::to_owned));
        let service = service(rabbit, nats, books, TcpListener::bind(address).await?).with_signals();
        spawn_probes(TcpListener::bind(probes).await?, service.health());
        Ok(service.await?)
    })
    .await
}

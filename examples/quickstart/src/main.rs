//! Plays the story on the broker that is asked for, and draws what happened.

mod on_server;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use quickstart::handlers::End;
use quickstart::memory;
use quickstart::story::{Cast, Service, play};
use throughline::broker::Broker;
use throughline::export::{Telemetry, console};
use throughline::memory::Memory;
use tokio::runtime::Runtime;

const USAGE: &str = "\
usage: cargo run -p quickstart [--features NAME -- --broker NAME]

An order goes through three services; the terminal shows its trace.

  --broker memory   inside this program (the default)
  --broker nats     on a NATS server that is found or started; built with `--features nats`
  --broker kafka    on a Kafka server that is found or started; built with `--features kafka`
  --broker rabbit   on a RabbitMQ server that is found or started; built with `--features rabbit`
  --help            this text";

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] | ["--broker", "memory"] => in_memory(),
        ["--broker", "nats"] => on_server::nats(),
        ["--broker", "kafka"] => on_server::kafka(),
        ["--broker", "rabbit"] => on_server::rabbit(),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("error: `{}` is not understood\n\n{USAGE}", arguments.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn in_memory() -> Result<(), Failed> {
    Runtime::new()?.block_on(async {
        let telemetry = console().service_name("shop").build()?;
        let broker = Memory::new();
        let story = play(cast(&telemetry, [broker.clone(), broker.clone(), broker]), memory::subscriptions(), tell);
        finish(story.await.map(drop), &telemetry).await
    })
}

/// One collector for all three services: it draws a trace that crosses them as one picture.
fn cast<B: Broker>(telemetry: &Telemetry, [shop, stock, billing]: [B; 3]) -> Cast<B> {
    let service = |name, broker| {
        let providers = telemetry.service(name);
        Service { broker, tracers: providers.tracer_provider(), meters: providers.meter_provider() }
    };
    let shop = Service { broker: shop, tracers: telemetry.tracer_provider(), meters: telemetry.meter_provider() };
    Cast { shop, stock: service("stock", stock), billing: service("billing", billing) }
}

fn tell(end: &End) {
    println!("{end}");
}

async fn finish(result: Result<(), Failed>, telemetry: &Telemetry) -> Result<(), Failed> {
    println!();
    println!("{}", telemetry.shutdown().await?); // draws the traces and the metrics
    result
}

/// The error with its causes; some say theirs already.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

//! Plays the story on the broker that is asked for, and draws what happened.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use quickstart::handlers::End;
use quickstart::story::{Cast, Service, play};
use quickstart::{kafka, memory, nats};
use throughline::broker::Broker;
use throughline::export::{Telemetry, console};
use throughline::memory::Memory;
use tokio::runtime::Runtime;
use xtask::{interrupt, servers};

const USAGE: &str = "\
usage: cargo run -p quickstart [-- --broker NAME]

An order goes through three services; the terminal shows its trace.

  --broker memory   inside this program (the default)
  --broker nats     on a NATS server that is found or started
  --broker kafka    on a Kafka server that is found or started
  --help            this text";

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] | ["--broker", "memory"] => in_memory(),
        ["--broker", "nats"] => on_nats(),
        ["--broker", "kafka"] => on_kafka(),
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

fn on_nats() -> Result<(), Failed> {
    interrupt::install()?;
    let server = servers::nats::find_or_start()?; // stopped when it is dropped, if it was started here
    println!("using {server}");
    Runtime::new()?.block_on(async {
        let telemetry = console().service_name("shop").build()?;
        let result = tokio::select! {
            result = story_on(server.url(), &telemetry) => result,
            () = interrupted() => Err("interrupted".into()),
        };
        finish(result, &telemetry).await
    })
}

async fn story_on(url: &str, telemetry: &Telemetry) -> Result<(), Failed> {
    let control = nats::connect(url).await?;
    nats::clean_up(&control).await?;
    // A connection each: they are three services.
    let connections = [nats::connect(url).await?, nats::connect(url).await?, nats::connect(url).await?];
    let played = play(cast(telemetry, connections), nats::subscriptions(), tell).await;
    nats::clean_up(&control).await?;
    played.map(drop)
}

fn on_kafka() -> Result<(), Failed> {
    interrupt::install()?;
    let server = servers::kafka::find_or_start()?; // stopped when it is dropped, if it was started here
    println!("using {server}");
    Runtime::new()?.block_on(async {
        let telemetry = console().service_name("shop").build()?;
        let result = story_on_kafka(server.url(), &telemetry).await;
        finish(result, &telemetry).await
    })
}

async fn story_on_kafka(url: &str, telemetry: &Telemetry) -> Result<(), Failed> {
    let run = kafka::Run::prepare(url).await?;
    let story = async {
        // A connection each: they are three services.
        let connections = [kafka::connect(url).await?, kafka::connect(url).await?, kafka::connect(url).await?];
        play(cast(telemetry, connections), run.subscriptions(), tell).await.map(drop)
    };
    let played = tokio::select! {
        played = story => played,
        () = interrupted() => Err("interrupted".into()),
    };
    run.clean_up().await?;
    played
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

/// Waits for Ctrl-C, which is a flag here so that the server is stopped before the program ends.
async fn interrupted() {
    while !interrupt::requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

//! Shows the services at work: `cargo run -p orders -- demo`, and places orders: `cargo run -p orders -- load URL`.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use orders::demo::customer::{Answer, Customer};
use orders::demo::load::{Load, purchase};
use orders::demo::{self, DemoError, Options, interrupted};
use xtask::interrupt;

/// The example orders at work.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts brokers and services, places orders, and draws their traces. Ctrl-C ends it early
    Demo {
        /// Where the storefront takes orders; port 0 is a free one
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// How many orders are placed beside those of the story
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        orders: u64,
        /// How many of them are placed in a second
        #[arg(long, value_name = "COUNT", default_value = "20")]
        rate: NonZeroU32,
    },
    /// Places orders at a storefront that runs, until Ctrl-C
    Load {
        /// The URL of the storefront
        #[arg(default_value = "http://127.0.0.1:8080")]
        url: String,
        /// How many orders are placed; without it there is no end
        #[arg(long, value_name = "COUNT")]
        orders: Option<u64>,
        /// How many are placed in a second
        #[arg(long, value_name = "COUNT", default_value = "5")]
        rate: NonZeroU32,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(error.as_ref()));
            let interrupted = matches!(error.downcast_ref(), Some(DemoError::Interrupted));
            if interrupted { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    interrupt::install()?;
    match command {
        Command::Demo { listen, orders, rate } => Ok(demo::run(Options { listen, orders, rate }).await?),
        Command::Load { url, orders, rate } => place(&url, Load { orders, rate, purchase }).await,
    }
}

async fn place(url: &str, load: Load) -> Result<(), Box<dyn Error>> {
    let (mut taken, mut refused, mut failed) = (0_u64, 0_u64, 0_u64);
    let customer = Customer::new(url);
    let placed = load.run(&customer, |(_, answer)| match answer {
        Ok(Answer::Taken(_)) => taken += 1,
        Ok(Answer::Refused) => refused += 1,
        Err(error) => {
            failed += 1;
            eprintln!("an order was not placed: {}", with_causes(&error));
        }
    });
    tokio::select! {
        () = placed => (),
        () = interrupted() => (),
    }
    println!("{taken} orders taken, {refused} refused, {failed} not placed");
    if failed == 0 { Ok(()) } else { Err("the storefront did not take every order".into()) }
}

/// An error and why, each once.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

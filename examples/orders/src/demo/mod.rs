//! The three services as processes, on brokers that are found or started, with customers, until all orders have ended.
//!
//! | to | take |
//! | --- | --- |
//! | see what happens to an order | [`run`], which is `cargo run -p orders -- demo` |
//! | place orders | [`Customer`], or many with [`Load`] |
//! | run the services as processes | [`Services`], on [`Brokers`] |
//!
//! The services know nothing of this. Who copies them leaves this folder behind.

pub mod brokers;
pub mod customer;
pub mod load;
mod pictures;
pub mod programs;
pub mod services;
mod story;

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use throughline_cli::Receiver;
use tokio::time::sleep;
use xtask::interrupt;

use self::brokers::{Brokers, BrokersError};
use self::customer::{Customer, CustomerError};
use self::load::Load;
use self::programs::ProgramsError;
use self::services::{ServiceError, Services, Setup};
use self::story::Played;
use crate::config::SHOWN_BAGGAGE;

/// The variable that names who receives telemetry, where it is not the demo itself.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// How long the demo waits between two looks at Ctrl-C.
const POLL: Duration = Duration::from_millis(50);

/// What a demo is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the storefront takes orders; port 0 is a free one.
    pub listen: SocketAddr,
    /// How many orders are placed beside those of the story.
    pub orders: u64,
    /// How many of them are placed in a second.
    pub rate: NonZeroU32,
}

/// Runs the demo, and prints the pictures of its story.
///
/// Ctrl-C ends it early where the program has called [`interrupt::install`]. However it ends, all that it started has ended before.
///
/// # Errors
///
/// Fails when programs, a broker or a port cannot be had, a service fails, or an order does not end.
///
/// # Cancel safety
///
/// When this is dropped before it is done, the services are killed, and brokers that were started for it are stopped.
pub async fn run(options: Options) -> Result<(), DemoError> {
    services::is_free(options.listen)?;
    let programs = programs::folder();
    if interrupt::requested() {
        return Err(DemoError::Interrupted);
    }
    let programs = programs?;
    let brokers = Brokers::find_or_start().await?;
    let logs = Logs::create()?;
    let mut variables: Vec<_> = brokers.variables().chain([("REDRIVE_AFTER_SECONDS", "1".to_owned())]).collect();
    let receiver = receiver().await?;
    if let Some(receiver) = &receiver {
        variables.push((ENDPOINT, format!("http://{}", receiver.address())));
    }
    let setup = Setup { programs, logs: logs.0.clone(), storefront: options.listen, variables };
    let mut services = until_interrupted(Services::start(&setup)).await??;
    println!("the storefront takes orders at {}/orders\n", services.url());
    let customer = Customer::new(&services.url());
    let played = tokio::select! {
        played = until_interrupted(play(&customer, options)) => played.and_then(|played| played),
        error = services.ended() => Err(error.into()),
    };
    let stopped = services.stop().await;
    let played = played?;
    stopped?;
    match receiver {
        Some(receiver) => pictures::draw(&played, &receiver.finish().await)?,
        None => println!("The traces are where {ENDPOINT} leads."),
    }
    println!("{played}");
    Ok(())
}

async fn play(customer: &Customer, options: Options) -> Result<Played, DemoError> {
    let mut played = story::play(customer).await?;
    println!("placing {} orders, {} a second\n", options.orders, options.rate);
    let load = Load { orders: Some(options.orders), rate: options.rate, purchase: load::purchase };
    load.run(customer, |outcome| played.add(outcome)).await;
    played.wait(customer).await?;
    Ok(played)
}

/// Takes telemetry, unless somebody else does.
async fn receiver() -> io::Result<Option<Receiver>> {
    if env::var_os(ENDPOINT).is_some_and(|endpoint| !endpoint.is_empty()) {
        return Ok(None);
    }
    Receiver::start((Ipv4Addr::LOCALHOST, 0).into(), SHOWN_BAGGAGE).await.map(Some)
}

/// Waits until the user has pressed Ctrl-C, since the program called [`interrupt::install`].
///
/// # Cancel safety
///
/// Nothing is lost when this is dropped.
pub async fn interrupted() {
    while !interrupt::requested() {
        sleep(POLL).await;
    }
}

async fn until_interrupted<T>(work: impl Future<Output = T>) -> Result<T, DemoError> {
    tokio::select! {
        done = work => Ok(done),
        () = interrupted() => Err(DemoError::Interrupted),
    }
}

/// The folder with the logs of the services, removed when it is dropped.
struct Logs(PathBuf);

impl Logs {
    fn create() -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("orders-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let folder: &Path = &self.0;
        if let Err(error) = std::fs::remove_dir_all(folder) {
            eprintln!("the folder {} is left behind: {error}", folder.display());
        }
    }
}

/// A demo that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A broker cannot be had.
    #[error("the brokers cannot be had")]
    Brokers(#[source] BrokersError),
    /// An order was not placed, or did not end.
    #[error("an order failed")]
    Customer(#[from] CustomerError),
    /// The user pressed Ctrl-C.
    #[error("interrupted; everything that was started is stopped")]
    Interrupted,
    /// A file or a port of the demo's own.
    #[error("the demo cannot work")]
    Io(#[from] io::Error),
    /// The services cannot be built.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A service does not do as it should.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl From<BrokersError> for DemoError {
    fn from(error: BrokersError) -> Self {
        if error.is_interrupt() { Self::Interrupted } else { Self::Brokers(error) }
    }
}

//! The table of a real NATS server.

mod consume;
mod hand;
mod publish;

use std::error::Error;

use tokio::runtime::Builder;

use self::consume::Consume;
use self::publish::Publish;
use crate::programs;
use crate::report::{Report, Unit};

/// Measures both parts of NATS, in interleaved rounds of messages per second.
///
/// # Errors
///
/// When the server does not answer.
pub fn measure(url: &str, rounds: usize) -> Result<Report, Box<dyn Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    runtime.block_on(async {
        for publish in &Publish::ALL {
            rows.extend(programs::measure(publish, url, rounds).await?);
        }
        for consume in &Consume::ALL {
            rows.extend(programs::measure(consume, url, rounds).await?);
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    Ok(Report { unit: Unit::PerSecond, rows })
}

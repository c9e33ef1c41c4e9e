//! The table of a real RabbitMQ server.

mod clients;
mod consume;
mod hand;
mod publish;

use std::error::Error;

use self::consume::Consume;
use self::publish::Publish;
use crate::programs;
use crate::report::{Report, Unit};

/// Measures publishing and consuming, in interleaved rounds of messages per second.
///
/// # Errors
///
/// When the server does not answer.
pub fn measure(url: &str, rounds: usize) -> Result<Report, Box<dyn Error>> {
    let mut rows = Vec::new();
    programs::runtime()?.block_on(async {
        for publish in &Publish::ALL {
            rows.extend(programs::measure(publish, url, rounds).await?);
        }
        rows.extend(programs::measure(&Consume, url, rounds).await?);
        Ok::<(), Box<dyn Error>>(())
    })?;
    Ok(Report { unit: Unit::PerSecond, rows })
}

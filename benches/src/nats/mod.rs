//! The table of a real NATS server.

mod consume;
mod hand;
mod publish;

use std::error::Error;

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
    let mut rows = Vec::new();
    programs::runtime()?.block_on(async {
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

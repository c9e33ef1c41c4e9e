//! The table of a real Kafka server, and how much memory a blocked handler keeps.

mod backlog;
mod clients;
mod consume;
mod hand;
mod publish;
mod topics;

use std::error::Error;

pub use self::backlog::{BACKLOG, Backlogs, backlog};
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
        for publish in Publish::all() {
            rows.extend(programs::measure(&publish, url, rounds).await?);
        }
        for consume in Consume::all() {
            rows.extend(programs::measure(&consume, url, rounds).await?);
        }
        topics::delete_all(url).await
    })?;
    Ok(Report { unit: Unit::PerSecond, rows })
}

/// Measures the memory that messages behind a blocked handler take. To be called first, while nothing else has left memory behind.
///
/// # Errors
///
/// When the server does not answer.
pub fn measure_backlogs(url: &str) -> Result<Backlogs, Box<dyn Error>> {
    programs::runtime()?.block_on(async {
        let backlogs = backlog::measure(url).await?;
        topics::delete_all(url).await?;
        Ok(backlogs)
    })
}

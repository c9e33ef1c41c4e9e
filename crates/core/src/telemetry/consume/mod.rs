//! Telemetry of what arrives: receive, process and settle.

mod consumer;
mod incoming;
mod origin;
mod output;
mod processing;
mod receiving;
mod recorder;
mod seen_as;
mod settling;

pub use self::consumer::Consumer;
pub use self::incoming::Incoming;
pub use self::output::ProcessOutput;
pub use self::processing::Processing;
pub use self::receiving::Receiving;
pub use self::settling::Settling;

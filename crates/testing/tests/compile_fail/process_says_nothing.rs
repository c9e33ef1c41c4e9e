//! The raw door: a future whose value does not say whether the message was processed.

use throughline_core::telemetry::Processing;

async fn handle(processing: Processing) {
    processing.run(async { 42 }).await;
}

fn main() {}

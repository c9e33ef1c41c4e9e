//! The in-memory broker: nothing to install, nothing to start.

use std::time::Duration;

use throughline::memory::Channel;

use crate::services::Subscriptions;

/// Returns what the services subscribe to.
#[must_use]
pub fn subscriptions() -> Subscriptions {
    Subscriptions {
        placed: Channel::new("orders.placed").group("stock").into(),
        reserved: Channel::new("stock.reserved").group("billing").batch(2, Duration::from_secs(10)).into(),
        invoiced: Channel::new("invoices.created").group("shop").into(),
        dead: Channel::new("orders.dead").group("shop").into(),
    }
}

//! The three services: each an app of its own, made of handlers and of what it subscribes to.

use std::time::Duration;

use throughline::broker::Subscription;
use throughline::middleware::Retry;
use throughline::{App, Handler, RetryPolicy};

use crate::handlers::{Desk, Warehouses, explain, invoice, notify, reserve};

/// What the services subscribe to: all that differs between the brokers.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    /// `orders.placed`, by stock.
    pub placed: Subscription,
    /// `stock.reserved`, by billing, in batches of two.
    pub reserved: Subscription,
    /// `invoices.created`, by the shop.
    pub invoiced: Subscription,
    /// `orders.dead`, by the shop.
    pub dead: Subscription,
}

/// Reserves, tries a second time where that fails, then gives the order to the dead letter.
#[must_use]
pub fn stock(placed: impl Into<Subscription>, warehouses: Warehouses) -> App {
    let reserving = reserve
        .reply_to("stock.reserved")
        .middleware(Retry::new(RetryPolicy::new().attempts(2).first_delay(Duration::from_millis(10))))
        .dead_letter("orders.dead");
    App::new().subscribe(placed, reserving).with_state(warehouses)
}

/// Invoices what is reserved, two orders at a time.
#[must_use]
pub fn billing(reserved: impl Into<Subscription>) -> App {
    App::new().subscribe(reserved, invoice.reply_to("invoices.created"))
}

/// Hears how its orders ended.
#[must_use]
pub fn shop(invoiced: impl Into<Subscription>, dead: impl Into<Subscription>, desk: Desk) -> App {
    App::new().subscribe(invoiced, notify).subscribe(dead, explain).with_state(desk)
}

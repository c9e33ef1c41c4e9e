//! What travels between the services.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the shop publishes to `orders.placed`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OrderPlaced {
    /// The number of the order.
    pub id: u32,
    /// What was ordered.
    pub item: String,
    /// How many of it.
    pub count: u32,
}

/// What stock publishes to `stock.reserved`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StockReserved {
    /// The number of the order.
    pub order: u32,
    /// The price of all of it, in cents.
    pub cents: u32,
}

/// What billing publishes to `invoices.created`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InvoiceCreated {
    /// The number of the order.
    pub order: u32,
    /// The price with tax, in cents.
    pub cents: u32,
}

/// Says why an item was not reserved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotReserved {
    /// No warehouse has it.
    OutOfStock(String),
    /// The warehouse counts its shelves and knows soon.
    ShelfBusy(String),
}

impl fmt::Display for NotReserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfStock(item) => write!(f, "no warehouse has a {item}"),
            Self::ShelfBusy(item) => write!(f, "the shelf of the {item}s is being counted"),
        }
    }
}

impl Error for NotReserved {}

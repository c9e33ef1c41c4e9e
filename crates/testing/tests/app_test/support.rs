//! What the tests share.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_core::Delivery;
use throughline_core::broker::{Pattern, RetryPlace, RetryRoute, Subscription};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Collects what handlers saw.
#[derive(Debug)]
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Seen<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// An error with a cause.
#[derive(Debug)]
pub(crate) struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of stock")
    }
}

impl Error for OutOfStock {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&Closed)
    }
}

#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the warehouse is closed")
    }
}

impl Error for Closed {}

/// The places of a broker that does not deliver again: `orders.wait.0` and so on, with a delay each.
pub(crate) struct Places(pub(crate) Vec<Duration>);

impl RetryRoute for Places {
    fn place(&self, message: &Delivery, after: Option<Duration>) -> Option<RetryPlace> {
        let failed = message.attempt() as usize - 1;
        let origin = self.place_at(message.destination()).map_or(message.destination(), |(origin, _)| origin);
        let (index, delay) = match after {
            None => (failed, *self.0.get(failed)?),
            Some(after) => (self.0.len() - 1, after),
        };
        Some(RetryPlace::new(format!("{origin}.wait.{index}"), delay))
    }

    fn place_at<'a>(&self, destination: &'a str) -> Option<(&'a str, Duration)> {
        let (origin, number) = destination.rsplit_once(".wait.")?;
        Some((origin, *self.0.get(number.parse::<usize>().ok()?)?))
    }
}

/// A subscription to orders on such a broker.
pub(crate) fn orders(delays: &[Duration]) -> Subscription {
    let subscription = Subscription::new("other", Pattern::exact("orders")).with_group("stock").without_redelivery();
    if delays.is_empty() { subscription } else { subscription.with_retry_route(Arc::new(Places(delays.to_vec()))) }
}

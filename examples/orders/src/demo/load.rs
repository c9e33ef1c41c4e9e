//! Many orders.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::customer::{Answer, Customer, CustomerError, Purchase};

/// How many customers wait for the storefront at the same time: more wait outside.
const AT_ONCE: usize = 64;

/// How long a customer tries.
const PATIENCE: Duration = Duration::from_secs(120);

/// The customers that come in turn.
const TENANTS: [&str; 3] = ["acme", "globex", "umbrella"];

/// Orders at a rate.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many orders there are; `None` for no end.
    pub orders: Option<u64>,
    /// How many are placed in a second.
    pub rate: NonZeroU32,
    /// What the customer with a number wants, from 0.
    pub purchase: fn(u64) -> Purchase,
}

/// What came of a purchase.
pub type Outcome = (Purchase, Result<Answer, CustomerError>);

impl Load {
    /// Places the orders, and calls `tell` with what came of each.
    ///
    /// # Cancel safety
    ///
    /// Orders that are being placed when this is dropped may be placed or not.
    pub async fn run(self, customer: &Customer, mut tell: impl FnMut(Outcome)) {
        let mut ticks = interval(Duration::from_secs(1) / self.rate.get());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut customers = JoinSet::new();
        let mut number = 0;
        while self.orders.is_none_or(|orders| number < orders) {
            ticks.tick().await;
            while customers.len() >= AT_ONCE {
                told(customers.join_next().await, &mut tell);
            }
            while let Some(done) = customers.try_join_next() {
                told(Some(done), &mut tell);
            }
            let (customer, purchase) = (customer.clone(), (self.purchase)(number));
            customers.spawn(async move { (purchase, customer.order(purchase, PATIENCE).await) });
            number += 1;
        }
        while !customers.is_empty() {
            told(customers.join_next().await, &mut tell);
        }
    }
}

/// A customer whose task panicked has said so.
fn told(joined: Option<Result<Outcome, tokio::task::JoinError>>, tell: &mut impl FnMut(Outcome)) {
    if let Some(Ok(outcome)) = joined {
        tell(outcome);
    }
}

/// Returns what customers want: mostly lamps, now and then what does not go smoothly.
#[must_use]
pub fn purchase(number: u64) -> Purchase {
    let index = usize::try_from(number % TENANTS.len() as u64).unwrap_or_default();
    let tenant = TENANTS.get(index).copied().unwrap_or_default();
    let of = |tenant, item| Purchase { tenant, item, count: 1 };
    match number % 50 {
        13 => of(tenant, "unicorn"),
        20 | 40 => of("initech", "lamp"),
        29 => of(tenant, "piano"),
        rest if rest % 5 == 1 => of(tenant, "chair"),
        _ => of(tenant, "lamp"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::purchase;

    #[test]
    fn customers_want_everything_and_mostly_what_is_there() {
        let all: Vec<_> = (0..50).map(purchase).collect();
        let items: BTreeSet<&str> = all.iter().map(|purchase| purchase.item).collect();
        assert_eq!(items.into_iter().collect::<Vec<_>>(), ["chair", "lamp", "piano", "unicorn"]);
        assert_eq!(all.iter().filter(|purchase| purchase.tenant == "initech").count(), 2);
        assert!(all.iter().filter(|purchase| purchase.item == "lamp").count() > 30);
        assert_eq!(purchase(7), purchase(7 + 150));
    }
}

//! What the customers of the demo order, and how that ends.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::customer::{Answer, Customer, CustomerError, Purchase};
use super::load::Outcome;

/// How long an order may take: the brokers were started a moment ago.
const PATIENCE: Duration = Duration::from_secs(60);

/// A scene of the story: what it shows, and what is ordered for it.
type Scene = (&'static str, Purchase);

/// One order after the other, so that each trace is read by itself.
const SCENES: [Scene; 5] = [
    ("Two lamps, through all three services", Purchase { tenant: "acme", item: "lamp", count: 2 }),
    (
        "A chair: the shelf is being counted, so the warehouse tries again",
        Purchase { tenant: "acme", item: "chair", count: 1 },
    ),
    (
        "A piano: three attempts, the dead letter, and back after a second",
        Purchase { tenant: "acme", item: "piano", count: 1 },
    ),
    (
        "No credit for initech: a dead letter at once, and the order is cancelled",
        Purchase { tenant: "initech", item: "lamp", count: 1 },
    ),
    (
        "A unicorn: the warehouse has none, and the request fails",
        Purchase { tenant: "acme", item: "unicorn", count: 1 },
    ),
];

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Played {
    /// What each scene shows, and the number of its order, where it is one.
    pub(super) scenes: Vec<(&'static str, Option<u64>)>,
    orders: Vec<u64>,
    /// How many orders ended so.
    ends: BTreeMap<String, usize>,
    refused: usize,
    errors: Vec<CustomerError>,
}

/// Plays the scenes.
pub(super) async fn play(customer: &Customer) -> Result<Played, CustomerError> {
    let mut played = Played::default();
    for (shows, purchase) in SCENES {
        let answer = customer.order(purchase, PATIENCE).await?;
        let order = match answer {
            Answer::Taken(order) => Some(order),
            Answer::Refused => None,
        };
        match order {
            Some(order) => println!("{shows}\n  {}", customer.end(order, PATIENCE).await?),
            None => println!("{shows}\n  refused"),
        }
        played.scenes.push((shows, order));
        played.add((purchase, Ok(answer)));
    }
    println!();
    Ok(played)
}

impl Played {
    /// Notes what came of a purchase.
    pub(super) fn add(&mut self, (_, answer): Outcome) {
        match answer {
            Ok(Answer::Taken(order)) => self.orders.push(order),
            Ok(Answer::Refused) => self.refused += 1,
            Err(error) => self.errors.push(error),
        }
    }

    /// Waits until all orders have ended.
    pub(super) async fn wait(&mut self, customer: &Customer) -> Result<(), CustomerError> {
        if let Some(error) = self.errors.pop() {
            return Err(error);
        }
        for &order in &self.orders {
            let end = customer.end(order, PATIENCE).await?;
            // The price and the place are of one order.
            let end = end.split_once(" cents").map_or(end.as_str(), |_| "invoiced");
            *self.ends.entry(end.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, ends, refused, .. } = self;
        write!(f, "{} orders:", orders.len())?;
        for (end, count) in ends {
            write!(f, " {count} {end},")?;
        }
        write!(f, " none lost. {refused} refused: there are no unicorns.")
    }
}

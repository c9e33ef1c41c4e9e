use std::sync::Arc;
use std::time::{Duration, SystemTime};

use throughline_core::broker::{BrokerError, RETRY_ATTEMPT, RETRY_DUE, RetryPlace, RetryRoute};
use throughline_core::message::Delivery;

use super::Topic;

/// How long a message waits at most, whatever it says: a stranger may have written it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How many delays there may be: the failure rule gives a message up at its tenth attempt.
const MOST: usize = 9;

/// Holds the delays of retry topics.
#[derive(Clone, Debug)]
pub(crate) struct RetryTopics {
    delays: Vec<Duration>,
}

/// Finds the topic where a message waits for its next attempt.
pub(crate) struct RetryByTopic {
    group: Arc<str>,
    topics: Arc<RetryTopics>,
}

impl RetryTopics {
    pub(super) fn new(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self { delays: delays.into_iter().collect() }
    }

    /// Returns the names of the topics in which the messages of a topic wait.
    fn names<'a>(&'a self, topic: &'a str, group: &'a str) -> impl Iterator<Item = String> + 'a {
        (1..=self.delays.len()).map(move |number| name(topic, group, number))
    }
}

impl Topic {
    /// Returns the topics to read, those of retries among them.
    pub(crate) fn all_names(&self) -> Result<Vec<Arc<str>>, BrokerError> {
        let Some(retry) = &self.retry else { return Ok(self.names.clone()) };
        let Some(group) = &self.group else {
            return Err(BrokerError::configuration("retry topics are those of a group: add `.group(..)`"));
        };
        if self.is_pattern || !self.partitions.is_empty() {
            return Err(BrokerError::configuration(
                "retry topics have the name of a topic before theirs: subscribe to topics by name, and to no partition alone",
            ));
        }
        if !(1..=MOST).contains(&retry.delays.len()) {
            return Err(BrokerError::configuration(format!(
                "`retry_topics` needs one delay at least and takes {MOST} at most: a message is tried ten times in all"
            )));
        }
        let waiting = self.names.iter().flat_map(|topic| retry.names(topic, group)).map(Arc::from);
        Ok(self.names.iter().map(Arc::clone).chain(waiting).collect())
    }

    /// Tells whether messages of a topic wait there for their next attempt.
    pub(crate) fn is_retry_topic(&self, topic: &str) -> bool {
        self.retry.is_some() && !self.names.iter().any(|name| **name == *topic)
    }

    pub(crate) fn retry_route(&self) -> Option<RetryByTopic> {
        let (topics, group) = self.retry.as_ref().zip(self.group.as_ref())?;
        Some(RetryByTopic { group: Arc::clone(group), topics: Arc::clone(topics) })
    }
}

impl RetryRoute for RetryByTopic {
    fn place(&self, message: &Delivery, after: Option<Duration>) -> Option<RetryPlace> {
        let delays = &self.topics.delays;
        let last = delays.len().checked_sub(1)?;
        let failed = usize::try_from(message.attempt().saturating_sub(1)).unwrap_or(usize::MAX);
        let index = match after {
            None if failed > last => return None,
            None => failed,
            Some(after) => delays.iter().position(|delay| *delay >= after).unwrap_or(last),
        };
        let wait = delays.get(index)?.max(&after.unwrap_or_default()).min(&LONGEST).to_owned();
        let topic = origin(message.destination(), &self.group);
        Some(RetryPlace { destination: name(topic, &self.group, index + 1).into(), due: SystemTime::now() + wait })
    }
}

/// Reads from a message that waited which attempt this is, and returns how long it still has to wait.
pub(crate) fn read(delivery: Delivery) -> (Delivery, Duration) {
    let number = |name| delivery.headers().get_last(name).and_then(|text| text.parse::<u64>().ok());
    let attempt = number(RETRY_ATTEMPT).and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(2);
    let due = number(RETRY_DUE).and_then(|due| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(due)));
    let wait = due.and_then(|due| due.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    (delivery.with_attempt(attempt.max(2)), wait.min(LONGEST))
}

fn name(topic: &str, group: &str, number: usize) -> String {
    format!("{topic}.{group}.retry.{number}")
}

/// Returns the topic a message was published to first, from the name of the one where it waited.
fn origin<'a>(topic: &'a str, group: &str) -> &'a str {
    let Some((before, number)) = topic.rsplit_once(".retry.") else { return topic };
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    before.strip_suffix(group).and_then(|topic| topic.strip_suffix('.')).filter(|_| is_number).unwrap_or(topic)
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::Subscription;

    use super::*;

    const DELAYS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

    fn place(destination: &'static str, attempt: u32, after: Option<Duration>) -> Option<(String, u64)> {
        let route = Topic::new("orders").group("stock").retry_topics(DELAYS).retry_route().unwrap();
        let place = route.place(&Delivery::new(destination, "x").with_attempt(attempt), after)?;
        let wait = place.due.duration_since(SystemTime::now()).unwrap();
        Some((place.destination.name().to_owned(), wait.as_secs_f64().round() as u64))
    }

    #[test]
    fn each_attempt_waits_in_the_next_topic_and_then_it_is_given_up() {
        assert_eq!(place("orders", 1, None), Some(("orders.stock.retry.1".to_owned(), 5)));
        assert_eq!(place("orders.stock.retry.1", 2, None), Some(("orders.stock.retry.2".to_owned(), 60)));
        assert_eq!(place("orders.stock.retry.2", 3, None), None);
    }

    #[test]
    fn a_delay_the_handler_asks_for_is_kept_and_not_counted() {
        let asked = |seconds| place("orders", 50, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(1), Some(("orders.stock.retry.1".to_owned(), 5)));
        assert_eq!(asked(6), Some(("orders.stock.retry.2".to_owned(), 60)));
        assert_eq!(asked(90), Some(("orders.stock.retry.2".to_owned(), 90)));
        assert_eq!(asked(1_000_000), Some(("orders.stock.retry.2".to_owned(), LONGEST.as_secs())));
    }

    #[test]
    fn the_subscription_reads_the_topics_in_which_its_messages_wait() {
        let topic = Topic::new("orders").and("bills").group("stock").retry_topics(DELAYS);
        let names: Vec<String> = topic.all_names().unwrap().iter().map(ToString::to_string).collect();
        let waiting = ["orders.stock.retry.1", "orders.stock.retry.2", "bills.stock.retry.1", "bills.stock.retry.2"];
        assert_eq!(names, ["orders", "bills"].into_iter().chain(waiting).collect::<Vec<_>>());
        assert!(topic.is_retry_topic("bills.stock.retry.2") && !topic.is_retry_topic("bills"));
        assert_eq!(Subscription::from(topic).patterns().len(), 2);
    }

    #[test]
    fn what_cannot_have_retry_topics_says_so() {
        assert!(Topic::new("orders").retry_topics(DELAYS).all_names().is_err());
        assert!(Topic::pattern("^orders").group("g").retry_topics(DELAYS).all_names().is_err());
        assert!(Topic::new("orders").group("g").partition(1).retry_topics(DELAYS).all_names().is_err());
        assert!(Topic::new("orders").group("g").retry_topics([]).all_names().is_err());
        assert!(Topic::new("orders").group("g").retry_topics([DELAYS[0]; 10]).all_names().is_err());
    }

    #[test]
    fn a_topic_that_only_looks_like_one_of_retries_is_an_origin() {
        assert_eq!(origin("orders.other.retry.1", "stock"), "orders.other.retry.1");
        assert_eq!(origin("orders.stock.retry.x", "stock"), "orders.stock.retry.x");
        assert_eq!(origin("a.stock.retry.12", "stock"), "a");
    }

    #[test]
    fn what_a_stranger_wrote_delays_a_day_at_most() {
        let strange = |attempt: &'static str, due: &'static str| {
            let mut headers = throughline_core::Headers::new();
            headers.insert(RETRY_ATTEMPT, attempt);
            headers.insert(RETRY_DUE, due);
            let (delivery, wait) = read(Delivery::new("t", "x").with_headers(headers));
            (delivery.attempt(), wait)
        };
        assert_eq!(strange("4294967296", "99999999999999"), (2, LONGEST));
        assert_eq!(strange("0", "-1"), (2, Duration::ZERO));
        assert_eq!(strange("x", "18446744073709551615"), (2, LONGEST));
        assert_eq!(strange("3", "1"), (3, Duration::ZERO));
    }
}

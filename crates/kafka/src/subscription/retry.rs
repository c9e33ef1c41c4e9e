use std::sync::Arc;
use std::time::{Duration, SystemTime};

use throughline_core::broker::{RETRY_ATTEMPT, RETRY_ERROR, RetryPlace, RetryRoute};
use throughline_core::{BrokerError, Delivery, Destination};

use crate::destination::Purpose;

/// How long a message waits at most in one topic, and in all.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a message goes on waiting at most: a stranger may have written how long.
const MOST_ROUNDS: u32 = 100;

/// The header that says how long a handler wants a message to wait, in milliseconds, where that is longer than the topic's own delay.
pub(crate) const RETRY_WAIT: &str = "retry-wait";

/// How many delays there may be: each is a topic that is read, and ten attempts are the default elsewhere.
const MOST: usize = 9;

/// Holds the delays of retry topics.
#[derive(Clone, Debug)]
pub(crate) struct RetryTopics {
    delays: Vec<Duration>,
}

/// How long a message from a retry topic waits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wait {
    /// How long it is kept back here. Never longer than the topic's own delay, so that it holds up no other message.
    pub(crate) now: Duration,
    /// How long it goes on waiting after that, once more in the same topic.
    pub(crate) rest: Duration,
}

/// In a delivery that is not for the handler yet, but goes on waiting in its topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitsOn(pub(crate) Duration);

/// Finds the topic where a message waits for its next attempt.
pub(crate) struct RetryByTopic {
    group: Arc<str>,
    topics: Arc<RetryTopics>,
}

impl RetryTopics {
    pub(super) fn new(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self { delays: delays.into_iter().collect() }
    }

    /// Returns the names of the retry topics of topics.
    pub(super) fn all_names(&self, topics: &[Arc<str>], group: &str) -> Result<Vec<Arc<str>>, BrokerError> {
        if !(1..=MOST).contains(&self.delays.len()) {
            return Err(BrokerError::configuration(format!(
                "`retry_topics` needs one delay at least and takes {MOST} at most: each is a topic to read"
            )));
        }
        Ok(topics.iter().flat_map(|topic| self.names(topic, group)).map(Arc::from).collect())
    }

    /// Reads from a message that waited which attempt this is and why, and returns how long it still has to wait. Clocks of others are not
    /// trusted further than the topic's own delay.
    pub(super) fn read(&self, delivery: Delivery) -> (Delivery, Wait) {
        let number = |name| delivery.header(name).and_then(|text| text.parse::<u64>().ok());
        let attempt = number(RETRY_ATTEMPT).and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(2);
        let delay = self.delay_of(delivery.destination()).unwrap_or_default();
        let asked = number(RETRY_WAIT).map_or(delay, |millis| bounded(Duration::from_millis(millis), delay).max(delay));
        // Times are in whole milliseconds: a message is never early.
        let written = delivery.sent_at().map(|written| written + Duration::from_millis(1));
        let waited = written.and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or_default();
        let wait = Wait { now: delay.saturating_sub(waited), rest: asked.saturating_sub(delay.max(waited)) };
        let cause = delivery.header_text(RETRY_ERROR).map(Arc::<str>::from);
        let delivery = delivery.with_attempt(attempt.max(2));
        (cause.into_iter().fold(delivery, Delivery::with_retry_cause), wait)
    }

    /// Returns the names of the topics in which the messages of a topic wait.
    fn names<'a>(&'a self, topic: &'a str, group: &'a str) -> impl Iterator<Item = String> + 'a {
        (1..=self.delays.len()).map(move |number| name(topic, group, number))
    }

    /// Returns the delay of a retry topic, by the number in its name.
    fn delay_of(&self, topic: &str) -> Option<Duration> {
        let (_, number) = topic.rsplit_once(".retry.")?;
        let delay = self.delays.get(number.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some((*delay).min(LONGEST))
    }
}

impl RetryByTopic {
    pub(super) fn new(group: &Arc<str>, topics: &Arc<RetryTopics>) -> Self {
        Self { group: Arc::clone(group), topics: Arc::clone(topics) }
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
        let delay = delays.get(index)?.to_owned().min(LONGEST);
        let longer = after.filter(|after| *after > delay).map(|after| bounded(after, delay));
        let topic = origin(message.destination(), &self.group);
        let destination = waiting_in(name(topic, &self.group, index + 1), longer);
        Some(RetryPlace::new(destination, longer.unwrap_or(delay)))
    }

    fn place_at<'a>(&self, destination: &'a str) -> Option<(&'a str, Duration)> {
        let topic = origin(destination, &self.group);
        let delay = self.topics.delay_of(destination).filter(|_| topic != destination)?;
        Some((topic, delay))
    }
}

/// Returns a retry topic as a destination, with how long a message waits there where that is not the topic's own delay.
pub(crate) fn waiting_in(topic: String, wait: Option<Duration>) -> Destination {
    let purpose = Purpose { retry: Some(wait.unwrap_or_default()), ..Purpose::default() };
    Destination::new(topic).with_native(purpose)
}

/// Cuts what was asked for to what there may be.
fn bounded(asked: Duration, delay: Duration) -> Duration {
    asked.min(LONGEST).min(delay.saturating_mul(MOST_ROUNDS))
}

fn name(topic: &str, group: &str, number: usize) -> String {
    format!("{topic}.{group}.retry.{number}")
}

/// Returns the topic a message was published to first, from the name of the one where it waited.
pub(super) fn origin<'a>(topic: &'a str, group: &str) -> &'a str {
    let Some((before, number)) = topic.rsplit_once(".retry.") else { return topic };
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    before.strip_suffix(group).and_then(|topic| topic.strip_suffix('.')).filter(|_| is_number).unwrap_or(topic)
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::Subscription;

    use super::super::Topic;
    use super::*;

    const DELAYS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

    fn place(destination: &'static str, attempt: u32, after: Option<Duration>) -> Option<(String, u64)> {
        let route = Topic::new("orders").group("stock").retry_topics(DELAYS).retry_route().unwrap();
        let place = route.place(&Delivery::new(destination, "x").with_attempt(attempt), after)?;
        Some((place.destination.name().to_owned(), place.wait.as_secs()))
    }

    #[test]
    fn each_attempt_waits_in_the_next_topic_and_then_it_is_given_up() {
        assert_eq!(place("orders", 1, None), Some(("orders.stock.retry.1".to_owned(), 5)));
        assert_eq!(place("orders.stock.retry.1", 2, None), Some(("orders.stock.retry.2".to_owned(), 60)));
        assert_eq!(place("orders.stock.retry.2", 3, None), None);
    }

    #[test]
    fn a_delay_the_handler_asks_for_is_kept_and_not_counted() {
        let asked = |wait| place("orders", 50, Some(wait));
        let seconds = |seconds| asked(Duration::from_secs(seconds));
        assert_eq!(seconds(1), Some(("orders.stock.retry.1".to_owned(), 5)));
        assert_eq!(seconds(6), Some(("orders.stock.retry.2".to_owned(), 60)));
        assert_eq!(seconds(90), Some(("orders.stock.retry.2".to_owned(), 90)));
        // A hundred times the longest delay.
        assert_eq!(seconds(1_000_000), Some(("orders.stock.retry.2".to_owned(), 6_000)));
        assert_eq!(asked(Duration::MAX), Some(("orders.stock.retry.2".to_owned(), 6_000)));
    }

    #[test]
    fn a_delay_of_a_topic_may_be_of_any_length() {
        let route = Topic::new("orders").group("stock").retry_topics([Duration::MAX]).retry_route().unwrap();
        for after in [None, Some(Duration::MAX)] {
            let place = route.place(&Delivery::new("orders", "x"), after).unwrap();
            assert!(place.wait <= LONGEST);
        }
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
    fn a_retry_topic_says_whose_messages_wait_there_and_how_long() {
        let route = Topic::new("orders").group("stock").retry_topics(DELAYS).retry_route().unwrap();
        assert_eq!(route.place_at("orders.stock.retry.2"), Some(("orders", DELAYS[1])));
        for other in ["orders", "orders.stock.retry.0", "orders.stock.retry.3", "orders.other.retry.1"] {
            assert_eq!(route.place_at(other), None, "{other}");
        }
    }

    #[test]
    fn a_topic_that_only_looks_like_one_of_retries_is_an_origin() {
        assert_eq!(origin("orders.other.retry.1", "stock"), "orders.other.retry.1");
        assert_eq!(origin("orders.stock.retry.x", "stock"), "orders.stock.retry.x");
        assert_eq!(origin("a.stock.retry.12", "stock"), "a");
    }

    #[test]
    fn a_message_says_why_it_waited() {
        let topic = Topic::new("orders").group("stock").retry_topics(DELAYS);
        let waited = Delivery::new("orders.stock.retry.1", "x");
        assert_eq!(topic.read_retry(waited.clone()).0.retry_cause(), None);
        let headers = throughline_core::Headers::from_iter([("retry-error", "timeout")]);
        assert_eq!(topic.read_retry(waited.with_headers(headers)).0.retry_cause(), Some("timeout"));
    }

    #[test]
    fn a_message_that_waited_is_shown_under_its_own_topic() {
        let topic = Topic::new("orders").and("odd.stock.retry.1").group("stock").retry_topics(DELAYS);
        assert_eq!(topic.shown_as("orders.stock.retry.2"), "orders");
        assert_eq!(topic.shown_as("orders"), "orders");
        assert_eq!(topic.shown_as("odd.stock.retry.1"), "odd.stock.retry.1", "it is subscribed to itself");
        assert_eq!(Topic::new("orders").group("stock").shown_as("orders.stock.retry.2"), "orders.stock.retry.2");
    }

    /// Reads a message that was written some seconds ago, or in the future.
    fn read(headers: &[(&'static str, &'static str)], age: i64) -> (u32, u64, u64) {
        let topic = Topic::new("orders").group("stock").retry_topics(DELAYS);
        let mut delivery = Delivery::new("orders.stock.retry.2", "x");
        let mut all = throughline_core::Headers::new();
        for (name, value) in headers {
            all.insert(*name, *value);
        }
        let span = Duration::from_secs(age.unsigned_abs());
        let written = if age < 0 { SystemTime::now() + span } else { SystemTime::now() - span };
        delivery = delivery.with_headers(all).with_sent_at(written);
        let (delivery, wait) = topic.read_retry(delivery);
        (delivery.attempt(), wait.now.as_secs_f64().round() as u64, wait.rest.as_secs_f64().round() as u64)
    }

    #[test]
    fn a_message_waits_as_long_as_its_topic_says_whatever_a_clock_or_a_stranger_does() {
        assert_eq!(read(&[], 0), (2, 60, 0));
        assert_eq!(read(&[], 20), (2, 40, 0), "it has waited already");
        assert_eq!(read(&[], 1_000), (2, 0, 0));
        assert_eq!(read(&[], -3_600), (2, 60, 0), "from a member whose clock is ahead");
        let strange =
            [("retry-attempt", "4294967296"), ("retry-due", "99999999999999"), (RETRY_WAIT, "18446744073709551615")];
        assert_eq!(read(&strange, 0), (2, 60, 5_940), "a hundred rounds at most");
        assert_eq!(read(&[("retry-attempt", "0"), ("retry-due", "-1"), (RETRY_WAIT, "-1")], 0), (2, 60, 0));
        assert_eq!(read(&[("retry-attempt", "3"), (RETRY_WAIT, "1")], 0), (3, 60, 0));
        assert_eq!(read(&[(RETRY_WAIT, "150000")], 0), (2, 60, 90));
        assert_eq!(read(&[(RETRY_WAIT, "150000")], 100), (2, 0, 50));
    }
}

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::guard::{Foreign, Guard};
use crate::message::Failure;

/// How often a failing message is tried by default, the first attempt included.
const ATTEMPTS: u32 = 10;

/// The shortest pause of what is repeated without a bound: a delay of zero would keep a processor busy for as long as a broker is away.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

type Predicate = Arc<dyn Fn(&Failure) -> bool + Send + Sync>;

/// The failure rule in the user's words: how often a failing message is tried, how long it waits in between, and which failures are worth
/// another attempt.
///
/// It is set for an app ([`App::retry`](crate::App::retry)), a group of subscriptions ([`Router::retry`](crate::Router::retry)) or one
/// subscription ([`Handler::retry`](crate::Handler::retry)); the narrowest one holds. The middleware [`Retry`](super::Retry) takes one for
/// attempts in place. It holds for single messages, for messages of a batch that fail alone, and for replies.
///
/// The default is ten attempts. The first delay is 100 ms, and each one is twice as long as the one before, up to 30 s. Up to half of a
/// delay is taken off at random, so that messages that failed together do not come back together.
///
/// The attempt that is used up, or a failure that is not worth another one, gives the message up: it goes to the dead letter where one is
/// set, else it is rejected. Where nobody sets a policy, a message whose sender waits ([`is_request`](crate::Delivery::is_request)) is tried
/// once. A limit of the broker itself, such as `max_deliver` of JetStream, still counts where it is lower.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::{App, Failure, Handler, RetryPolicy};
/// # use throughline_core::broker::{Pattern, Subscription};
/// # let orders = Subscription::new("in_memory", Pattern::exact("orders"));
///
/// async fn reserve(order: String) -> Result<(), std::io::Error> { Ok(()) }
///
/// let app: App = App::new()
///     .retry(RetryPolicy::new().attempts(5).first_delay(Duration::from_secs(1)))
///     // An item that is out of stock stays so.
///     .subscribe(orders, reserve.retry(RetryPolicy::new().retry_if(|failure: &Failure| failure.error_type() != "out_of_stock")));
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    /// `None` while nobody has said how many.
    attempts: Option<u32>,
    first_delay: Duration,
    max_delay: Duration,
    factor: f64,
    jitter: f64,
    /// `None` where every failure is worth another attempt.
    predicate: Option<Predicate>,
    /// Whether somebody chose it, who means requests too.
    is_chosen: bool,
}

/// What a policy says about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Judgement {
    /// There is another attempt.
    Again,
    /// No attempt mends it.
    NotWorthIt,
    /// There is none left.
    UsedUp,
}

impl RetryPolicy {
    /// Creates the default policy: ten attempts, 100 ms before the second one, twice as long before each further one, 30 s at most, up to
    /// half of it taken off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::RetryPolicy;
    /// assert_eq!(RetryPolicy::new().longest_delay(1), Duration::from_millis(100));
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            attempts: None,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.5,
            predicate: None,
            is_chosen: true,
        }
    }

    /// Creates a policy of one attempt: a message that fails is given up at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, RetryPolicy, Route};
    /// async fn reserve(order: String) -> Result<(), std::io::Error> { Ok(()) }
    /// let route: Route<()> = reserve.retry(RetryPolicy::never()).dead_letter("orders.dead");
    /// ```
    #[must_use]
    pub const fn never() -> Self {
        Self::new().attempts(1)
    }

    /// Sets the most attempts, the first one included; zero counts as one.
    ///
    /// Deliveries by the broker and attempts in place both count. Where an app, a router or a subscription says it, it also bounds how
    /// often one reply is published: after that the message is given up with the reply's error. Otherwise a reply is published again until
    /// it is confirmed, so that an outage of the broker uses up no message.
    ///
    /// # Examples
    ///
    /// ```
    /// let policy = throughline_core::RetryPolicy::new().attempts(3);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub const fn attempts(mut self, most: u32) -> Self {
        self.attempts = Some(if most == 0 { 1 } else { most });
        self
    }

    /// Sets the delay before the second attempt.
    #[must_use]
    pub const fn first_delay(mut self, delay: Duration) -> Self {
        self.first_delay = delay;
        self
    }

    /// Sets the longest delay; the first one is not longer either.
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets by how much each delay is longer than the one before. 1 makes them all alike; what is less, or no number, counts as 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::RetryPolicy;
    ///
    /// let policy = RetryPolicy::new().first_delay(Duration::from_secs(1)).factor(3.0);
    /// assert_eq!(policy.longest_delay(3), Duration::from_secs(9));
    /// ```
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        // A comparison with what is no number is false.
        self.factor = if factor > 1.0 { factor } else { 1.0 };
        self
    }

    /// Sets the largest part of a delay that is taken off at random: 0 for none, 1 for all of it. What is less counts as 0, what is more
    /// as 1, and what is no number as 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::RetryPolicy;
    /// let policy = RetryPolicy::new().jitter(0.0);
    /// assert_eq!(policy.delay(1), policy.longest_delay(1));
    /// ```
    #[must_use]
    pub const fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part > 0.0 { part.min(1.0) } else { 0.0 };
        self
    }

    /// Sets which failures are worth another attempt; the others are permanent, and their message is given up at once. A later predicate
    /// replaces an earlier one.
    ///
    /// It is not asked about failures that are [permanent](Failure::permanent) anyway. One that panics counts as yes; that is logged once.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Failure, RetryPolicy};
    ///
    /// // By its `error.type`, or by the error itself.
    /// let policy = RetryPolicy::new().retry_if(|failure: &Failure| {
    ///     failure.error_type() != "out_of_stock" && !failure.error().is::<std::num::ParseIntError>()
    /// });
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn retry_if(mut self, predicate: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Self {
        let guard = Guard::default();
        let guarded =
            move |failure: &Failure| guard.run(Foreign::RetryPredicate, || predicate(failure)).unwrap_or(true);
        self.predicate = Some(Arc::new(guarded));
        self
    }

    /// Returns the delay after the given failed attempt, counted from 1, with the jitter taken off.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let longest = self.longest_delay(attempt);
        if self.jitter == 0.0 {
            return longest;
        }
        let left = 1.0 - self.jitter * fastrand::f64();
        Duration::try_from_secs_f64(longest.as_secs_f64() * left).unwrap_or(longest).min(longest)
    }

    /// Returns the longest delay after the given failed attempt, counted from 1: the one without jitter.
    #[must_use]
    pub fn longest_delay(&self, attempt: u32) -> Duration {
        if self.first_delay.is_zero() {
            return Duration::ZERO;
        }
        let before = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.first_delay.as_secs_f64() * self.factor.powi(before);
        // What no duration can be is longer than any.
        Duration::try_from_secs_f64(grown).unwrap_or(Duration::MAX).min(self.max_delay)
    }

    /// How long to wait before something is repeated that has no bound.
    pub(crate) fn pause(&self, tries: u32) -> Duration {
        self.delay(tries).max(SHORTEST_PAUSE)
    }

    /// The policy where nobody chose one.
    pub(crate) fn unchosen() -> Self {
        Self { is_chosen: false, ..Self::new() }
    }

    /// Tells whether somebody chose it. Where nobody did, a request is tried once.
    pub(crate) const fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// Says what becomes of a message that failed at an attempt, counted from 1.
    pub(crate) fn judge(&self, failure: &Failure, attempt: u32) -> Judgement {
        if !self.is_worth_it(failure) {
            Judgement::NotWorthIt
        } else if attempt >= self.attempts.unwrap_or(ATTEMPTS) {
            Judgement::UsedUp
        } else {
            Judgement::Again
        }
    }

    /// Tells whether another attempt may mend a failure.
    pub(crate) fn is_worth_it(&self, failure: &Failure) -> bool {
        failure.is_retryable() && self.predicate.as_ref().is_none_or(|predicate| predicate(failure))
    }

    /// The most attempts, where somebody said how many.
    pub(crate) const fn chosen_attempts(&self) -> Option<u32> {
        self.attempts
    }

    /// The most attempts; `None` where somebody else counts them.
    pub(crate) fn most_attempts(&self) -> Option<u32> {
        Some(self.attempts.unwrap_or(ATTEMPTS)).filter(|most| *most < u32::MAX)
    }

    /// The same policy where somebody else counts the attempts.
    pub(crate) const fn uncounted(self) -> Self {
        self.attempts(u32::MAX)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("attempts", &self.attempts.unwrap_or(ATTEMPTS))
            .field("first_delay", &self.first_delay)
            .field("max_delay", &self.max_delay)
            .field("factor", &self.factor)
            .field("jitter", &self.jitter)
            .field("retry_if", &self.predicate.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failure() -> Failure {
        Failure::new("boom", "boom")
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let policy = RetryPolicy::new();
        let longest: Vec<u128> = (1..=11).map(|attempt| policy.longest_delay(attempt).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        for attempt in 1..=11 {
            let (delay, longest) = (policy.delay(attempt), policy.longest_delay(attempt));
            assert!(delay <= longest && delay >= longest / 2, "{delay:?} of {longest:?}");
        }
    }

    #[test]
    fn no_number_panics() {
        let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 0.5, 1.0, f64::MAX, f64::MIN_POSITIVE];
        let delays = [Duration::ZERO, Duration::from_nanos(1), SECOND, Duration::MAX];
        for factor in numbers {
            for jitter in numbers {
                for first in delays {
                    for most in delays {
                        let policy =
                            RetryPolicy::new().factor(factor).jitter(jitter).first_delay(first).max_delay(most);
                        for attempt in [0, 1, 2, 1_000, u32::MAX] {
                            assert!(policy.delay(attempt) <= policy.longest_delay(attempt));
                            assert!(policy.longest_delay(attempt) <= most);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_out_of_range_counts_as_the_nearest() {
        for factor in [f64::NAN, -3.0, 0.5] {
            assert_eq!(RetryPolicy::new().first_delay(SECOND).factor(factor).longest_delay(9), SECOND);
        }
        let steep = RetryPolicy::new().factor(f64::INFINITY);
        assert_eq!((steep.longest_delay(1), steep.longest_delay(2)), (SECOND / 10, SECOND * 30));
        for jitter in [f64::NAN, -1.0] {
            assert_eq!(RetryPolicy::new().jitter(jitter).delay(1), SECOND / 10);
        }
        assert_eq!(RetryPolicy::new().first_delay(Duration::ZERO).factor(f64::INFINITY).delay(9), Duration::ZERO);
    }

    #[test]
    fn the_attempts_count_the_first_one() {
        let judged = |policy: RetryPolicy, attempt| policy.judge(&failure(), attempt);
        assert_eq!(judged(RetryPolicy::new(), 9), Judgement::Again);
        assert_eq!(judged(RetryPolicy::new(), 10), Judgement::UsedUp);
        assert_eq!(judged(RetryPolicy::new().attempts(2), 1), Judgement::Again);
        assert_eq!(judged(RetryPolicy::new().attempts(2), 2), Judgement::UsedUp);
        for once in [RetryPolicy::never(), RetryPolicy::new().attempts(0)] {
            assert_eq!(judged(once, 1), Judgement::UsedUp);
        }
        assert_eq!(judged(RetryPolicy::new().uncounted(), u32::MAX - 1), Judgement::Again);
        assert_eq!(RetryPolicy::new().most_attempts(), Some(10));
        assert_eq!(RetryPolicy::new().uncounted().most_attempts(), None);
    }

    #[test]
    fn a_predicate_decides_unless_it_panics() {
        let picky = RetryPolicy::new().retry_if(|failure| failure.error_type() != "boom");
        assert_eq!(picky.judge(&failure(), 1), Judgement::NotWorthIt);
        assert_eq!(picky.judge(&Failure::new("other", "boom"), 1), Judgement::Again);
        let broken = RetryPolicy::new().retry_if(|_| panic!("no"));
        assert_eq!(broken.judge(&failure(), 1), Judgement::Again);
        assert_eq!(broken.judge(&failure().permanent(), 1), Judgement::NotWorthIt, "it is not asked");
    }

    #[test]
    fn what_has_no_bound_never_spins() {
        let eager = RetryPolicy::new().first_delay(Duration::ZERO);
        assert_eq!((eager.delay(1), eager.pause(1)), (Duration::ZERO, SHORTEST_PAUSE));
    }
}

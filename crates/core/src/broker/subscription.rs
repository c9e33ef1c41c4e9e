use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BrokerError, Pattern, RetryRoute};

/// How many patterns the text of a subscription shows.
const MOST_SHOWN: usize = 3;

/// When a batch is handed to its handler: when it is full, or when its first message has waited long enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BatchPolicy {
    /// The most messages in one batch.
    pub max_messages: usize,
    /// The longest time the first message waits.
    pub max_wait: Duration,
}

impl BatchPolicy {
    /// Creates a policy; a size of zero counts as one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// let policy = throughline_core::broker::BatchPolicy::new(100, Duration::from_millis(50));
    /// assert_eq!(policy.max_messages, 100);
    /// ```
    #[must_use]
    pub const fn new(max_messages: usize, max_wait: Duration) -> Self {
        Self { max_messages: if max_messages == 0 { 1 } else { max_messages }, max_wait }
    }
}

/// What to consume, in general terms. Adapters have their own typed builders that turn into one; users write those.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::{Pattern, Subscription};
///
/// let subscription = Subscription::new("in_memory", Pattern::exact("orders.placed")).with_group("stock");
/// assert_eq!(subscription.destination(), "orders.placed");
/// assert_eq!(subscription.group(), Some("stock"));
/// ```
#[derive(Clone)]
pub struct Subscription {
    system: &'static str,
    patterns: Vec<Pattern>,
    group: Option<Arc<str>>,
    name: Option<Arc<str>>,
    batch: Option<BatchPolicy>,
    delivery_limit: Option<u32>,
    redelivers: bool,
    retry_route: Option<Arc<dyn RetryRoute>>,
    needs: Vec<Cow<'static, str>>,
    description: Option<Cow<'static, str>>,
    native: Option<Arc<dyn Any + Send + Sync>>,
}

impl Subscription {
    /// Creates a subscription from the system it is made for (`messaging.system`) and the names it receives.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Subscription};
    /// assert_eq!(Subscription::new("nats", Pattern::exact("orders")).system(), "nats");
    /// ```
    #[must_use]
    pub fn new(system: &'static str, pattern: Pattern) -> Self {
        Self {
            system,
            patterns: vec![pattern],
            group: None,
            name: None,
            batch: None,
            delivery_limit: None,
            redelivers: true,
            retry_route: None,
            needs: Vec::new(),
            description: None,
            native: None,
        }
    }

    /// Adds a further pattern, for a subscription that is bound to several.
    #[must_use]
    pub fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Sets the group: of the subscriptions of one group each message reaches one.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets the name under which the broker keeps the subscription's position, such as a durable consumer.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Hands messages over in batches.
    #[must_use]
    pub const fn with_batch(mut self, policy: BatchPolicy) -> Self {
        self.batch = Some(policy);
        self
    }

    /// Sets how often the broker delivers a message at most; zero counts as one.
    #[must_use]
    pub const fn with_delivery_limit(mut self, most: u32) -> Self {
        self.delivery_limit = Some(if most == 0 { 1 } else { most });
        self
    }

    /// Says that the broker does not deliver a message again by itself: what is tried again waits with the app, and what comes after it
    /// waits too.
    #[must_use]
    pub const fn without_redelivery(mut self) -> Self {
        self.redelivers = false;
        self
    }

    /// Sets what finds the places where messages wait for their next attempt. The subscription receives from those places, too: a message
    /// that is published to one comes when it has waited, as a further attempt.
    #[must_use]
    pub fn with_retry_route(mut self, route: Arc<dyn RetryRoute>) -> Self {
        self.retry_route = Some(route);
        self
    }

    /// Names something that only the real broker can do; another broker refuses the subscription with that name.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Subscription};
    /// assert_eq!(Subscription::new("nats", Pattern::exact("a")).with_need("a start position").needs().len(), 1);
    /// ```
    #[must_use]
    pub fn with_need(mut self, need: impl Into<Cow<'static, str>>) -> Self {
        self.needs.push(need.into());
        self
    }

    /// Says in the broker's own words what the subscription is with the broker, for errors and logs. The default names the group and the
    /// name.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Subscription};
    /// let orders = Subscription::new("nats", Pattern::exact("orders.placed")).with_name("stock");
    /// assert_eq!(orders.to_string(), "`orders.placed` (name `stock`)");
    /// let orders = orders.with_description("stream `ORDERS`, durable `stock`");
    /// assert_eq!(orders.to_string(), "`orders.placed` (stream `ORDERS`, durable `stock`)");
    /// ```
    #[must_use]
    pub fn with_description(mut self, description: impl Into<Cow<'static, str>>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Attaches the adapter's own typed subscription.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Subscription};
    /// assert_eq!(Subscription::new("nats", Pattern::exact("a")).with_native(7_u8).native::<u8>(), Some(&7));
    /// ```
    #[must_use]
    pub fn with_native<T: Any + Send + Sync>(mut self, native: T) -> Self {
        self.native = Some(Arc::new(native));
        self
    }

    /// Puts a prefix before every name, for routers.
    pub(crate) fn prefixed(mut self, prefix: &str) -> Self {
        for pattern in &mut self.patterns {
            *pattern = pattern.prefixed(prefix);
        }
        self
    }

    /// Returns the system the subscription is made for.
    #[must_use]
    pub const fn system(&self) -> &'static str {
        self.system
    }

    /// Returns the text of the first pattern.
    #[must_use]
    pub fn destination(&self) -> &str {
        self.patterns.first().map_or("", Pattern::as_str)
    }

    /// Returns the patterns; there is at least one.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Returns the group.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Returns the name under which the broker keeps the position.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns when batches are handed over, for a subscription that batches.
    #[must_use]
    pub const fn batch(&self) -> Option<BatchPolicy> {
        self.batch
    }

    /// Returns how often the broker delivers a message at most; `None` where it knows no limit.
    #[must_use]
    pub const fn delivery_limit(&self) -> Option<u32> {
        self.delivery_limit
    }

    /// Tells whether the broker delivers a message again by itself; true unless said otherwise.
    #[must_use]
    pub const fn redelivers(&self) -> bool {
        self.redelivers
    }

    /// Returns what finds the places where messages wait for their next attempt, where there are such.
    #[must_use]
    pub const fn retry_route(&self) -> Option<&Arc<dyn RetryRoute>> {
        self.retry_route.as_ref()
    }

    /// Returns what only the real broker can do.
    #[must_use]
    pub fn needs(&self) -> &[Cow<'static, str>] {
        &self.needs
    }

    /// Returns the adapter's own typed subscription, if it is a `T`.
    #[must_use]
    pub fn native<T: Any>(&self) -> Option<&T> {
        self.native.as_deref()?.downcast_ref()
    }

    /// Creates the error of a broker that cannot take this subscription, since it is one for another system: `instead` names what to
    /// subscribe with.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Pattern, Subscription};
    /// let orders = Subscription::new("nats", Pattern::exact("orders"));
    /// assert_eq!(
    ///     orders.refused_by("kafka", "`Topic`").to_string(),
    ///     "the subscription to `orders` is one for nats, not for kafka: subscribe with `Topic`",
    /// );
    /// ```
    #[must_use]
    pub fn refused_by(&self, system: &str, instead: &str) -> BrokerError {
        let (destination, own) = (self.destination(), self.system());
        BrokerError::configuration(format!(
            "the subscription to `{destination}` is one for {own}, not for {system}: subscribe with {instead}"
        ))
    }
}

/// Names the subscription for people, with what it receives first: `orders.placed` in backticks, then the group or what else the adapter
/// says of it.
impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.patterns.iter().take(MOST_SHOWN).enumerate() {
            let before = if index == 0 { "" } else { ", " };
            write!(f, "{before}`{}`", pattern.as_str())?;
        }
        if self.patterns.len() > MOST_SHOWN {
            write!(f, " and {} more", self.patterns.len() - MOST_SHOWN)?;
        }
        match (&self.description, &self.group, &self.name) {
            (Some(description), ..) => write!(f, " ({description})"),
            (None, Some(group), Some(name)) => write!(f, " (group `{group}`, name `{name}`)"),
            (None, Some(group), None) => write!(f, " (group `{group}`)"),
            (None, None, Some(name)) => write!(f, " (name `{name}`)"),
            (None, None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("system", &self.system)
            .field("patterns", &self.patterns)
            .field("group", &self.group)
            .field("name", &self.name)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

/// Refuses two subscriptions that would share one group or one name: each handler would see only a part of the messages.
pub(super) fn check_distinct(subscriptions: &[&Subscription]) -> Result<(), BrokerError> {
    for (index, one) in subscriptions.iter().enumerate() {
        for other in subscriptions.iter().skip(index + 1) {
            let same_group = one.group.is_some() && one.group == other.group && one.patterns == other.patterns;
            let same_name = one.name.is_some() && one.name == other.name && one.patterns == other.patterns;
            if same_group || same_name {
                return Err(BrokerError::configuration(format!(
                    "two handlers subscribe to `{}` as `{}` and would each see only a part of its messages: \
                     give them different groups or names, or merge the handlers",
                    one.destination(),
                    one.group().or(one.name()).unwrap_or_default(),
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_is_received_and_for_whom() {
        let orders = || Subscription::new("x", Pattern::exact("orders"));
        assert_eq!(orders().to_string(), "`orders`");
        assert_eq!(orders().with_group("stock").with_name("a").to_string(), "`orders` (group `stock`, name `a`)");
        let many = ["b", "c", "d", "e"].into_iter().map(Pattern::exact).fold(orders(), Subscription::with_pattern);
        assert_eq!(many.with_group("stock").to_string(), "`orders`, `b`, `c` and 2 more (group `stock`)");
    }
}

use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;

/// The longest wait: a year stands for "for ever", and no clock overflows.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How many publishes may wait for their confirmation at the most.
const MOST_UNCONFIRMED: usize = 65_536;

const fn bounded(wait: Duration) -> Duration {
    if wait.as_secs() < LONGEST.as_secs() { wait } else { LONGEST }
}

/// What a [`Rabbit`](crate::Rabbit) is connected with, and how long it waits.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use throughline_rabbit::{Rabbit, RabbitOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = RabbitOptions::new().name("stock").confirm_timeout(Duration::from_secs(5));
/// let rabbit = Rabbit::connect_with(["rabbit-1", "rabbit-2"], options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RabbitOptions {
    pub(crate) name: Option<String>,
    pub(crate) virtual_host: Option<String>,
    pub(crate) properties: ConnectionProperties,
    pub(crate) tls: OwnedTLSConfig,
    pub(crate) limits: Limits,
}

impl Default for RabbitOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RabbitOptions {
    /// Creates options where nothing differs from the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: None,
            virtual_host: None,
            properties: ConnectionProperties::default(),
            tls: OwnedTLSConfig::default(),
            limits: Limits::DEFAULT,
        }
    }

    /// Sets the name that the server shows for the connections, and `messaging.client.id`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the virtual host, in place of that of the addresses.
    #[must_use]
    pub fn virtual_host(mut self, name: impl Into<String>) -> Self {
        self.virtual_host = Some(name.into());
        self
    }

    /// Sets the client's own properties: authentication, further client properties. Its automatic recovery stays off whatever they say,
    /// since the adapter connects again by itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::RabbitOptions;
    /// let properties = lapin::ConnectionProperties::default().with_client_property("team".into(), "stock".into());
    /// let options = RabbitOptions::new().client(properties);
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn client(mut self, properties: ConnectionProperties) -> Self {
        self.properties = properties;
        self
    }

    /// Sets certificates for `amqps://`: those to trust besides the system's, and the client's own.
    #[must_use]
    pub fn tls(mut self, config: OwnedTLSConfig) -> Self {
        self.tls = config;
        self
    }

    /// Sets the heartbeat (default: ten seconds, or that of the address). A server that is silent for twice as long is given up, and
    /// another connection is made. It is rounded up to whole seconds.
    #[must_use]
    pub const fn heartbeat(mut self, interval: Duration) -> Self {
        self.limits.heartbeat = bounded(interval);
        self
    }

    /// Sets how long each answer of the server is waited for: to a connection attempt, a new channel, a declaration, the start of a
    /// consumer (default: ten seconds).
    #[must_use]
    pub const fn answer_timeout(mut self, wait: Duration) -> Self {
        self.limits.answer = bounded(wait);
        self
    }

    /// Sets how long the confirmation of a publish is waited for once it was sent (default: 30 seconds). After that the message may have
    /// been stored ([`PublishFailure::MaybeStored`](crate::PublishFailure::MaybeStored)). It may take a tenth longer, and at most a quarter
    /// of a second.
    #[must_use]
    pub const fn confirm_timeout(mut self, wait: Duration) -> Self {
        self.limits.confirm = bounded(wait);
        self
    }

    /// Sets how long a publish waits where it cannot be sent: while the connection is lost, while the server is in an alarm, while too
    /// many others are not confirmed (default: 30 seconds). Zero fails at once.
    #[must_use]
    pub const fn publish_wait(mut self, wait: Duration) -> Self {
        self.limits.publish_wait = bounded(wait);
        self
    }

    /// Sets how many publishes may wait for their confirmation at a time (default: 1,024); further ones wait. Zero counts as one, and
    /// more than 65,536 as 65,536.
    #[must_use]
    pub const fn max_unconfirmed(mut self, publishes: usize) -> Self {
        self.limits.unconfirmed = match publishes {
            0 => 1,
            1..=MOST_UNCONFIRMED => publishes,
            _ => MOST_UNCONFIRMED,
        };
        self
    }

    /// Adds to an address what the options say.
    pub(crate) fn apply(&self, mut address: AMQPUri) -> AMQPUri {
        if let Some(name) = &self.virtual_host {
            address.vhost.clone_from(name);
        }
        if address.query.heartbeat.is_none() || self.limits.heartbeat != Limits::DEFAULT.heartbeat {
            let seconds = self.limits.heartbeat.as_millis().div_ceil(1_000);
            address.query.heartbeat = Some(u16::try_from(seconds).unwrap_or(u16::MAX).max(1));
        }
        address
    }

    /// Returns the client's properties for the connection that does `what`.
    pub(crate) fn properties(&self, what: &str) -> ConnectionProperties {
        let name = self.name.as_deref().unwrap_or("throughline");
        self.properties.clone().with_connection_name(format!("{name} ({what})").into())
    }
}

/// How long each wait may last, and how much may be under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For each answer of the server to a declaration, an open, a consume, a cancel.
    pub(crate) answer: Duration,
    /// For the confirmation of a publish, from when it was sent.
    pub(crate) confirm: Duration,
    /// Of a publish for a connection, for the end of an alarm, and for room among those that are not confirmed; zero fails at once.
    pub(crate) publish_wait: Duration,
    /// How many publishes may wait for their confirmation at a time.
    pub(crate) unconfirmed: usize,
    /// The heartbeat that was asked for.
    pub(crate) heartbeat: Duration,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Self {
        answer: Duration::from_secs(10),
        confirm: Duration::from_secs(30),
        publish_wait: Duration::from_secs(30),
        unconfirmed: 1_024,
        heartbeat: Duration::from_secs(10),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_are_none_too_large() {
        let options = RabbitOptions::new().publish_wait(Duration::MAX).confirm_timeout(Duration::MAX);
        let options = options.answer_timeout(Duration::MAX).max_unconfirmed(usize::MAX);
        let Limits { answer, confirm, publish_wait, unconfirmed, .. } = options.limits;
        assert_eq!([answer, confirm, publish_wait], [LONGEST; 3]);
        let _ = (tokio::time::Instant::now() + LONGEST, tokio::sync::Semaphore::new(unconfirmed));
    }

    fn applied(options: &RabbitOptions, address: &str) -> AMQPUri {
        options.apply(address.parse().unwrap())
    }

    #[test]
    fn a_heartbeat_of_the_address_counts_unless_the_options_say_another() {
        let plain = RabbitOptions::new();
        assert_eq!(applied(&plain, "amqp://h").query.heartbeat, Some(10));
        assert_eq!(applied(&plain, "amqp://h?heartbeat=3").query.heartbeat, Some(3));
        let chosen = RabbitOptions::new().heartbeat(Duration::from_millis(1_500)).virtual_host("shop");
        let address = applied(&chosen, "amqp://h/other?heartbeat=3");
        assert_eq!((address.query.heartbeat, address.vhost.as_str()), (Some(2), "shop"));
    }
}

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, ToServerAddrs, jetstream};
use async_trait::async_trait;
use futures_util::FutureExt;
use throughline_core::Publisher;
use throughline_core::broker::{Broker, BrokerError, BrokerErrorKind, Publish, Subscriber, Subscription};
use tokio::time::{sleep, timeout};

use crate::denied::Denied;
use crate::jetstream::StreamSubscriber;
use crate::publisher::NatsPublisher;
use crate::semconv::{SYSTEM, Systems};
use crate::subscriber::CoreSubscriber;
use crate::{Stream, address, error, semconv};

/// How long [`Nats::connect`] waits for each address of the server.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// How long one round trip to the server may take before it is no longer waited for.
const ROUND_TRIP_WAIT: Duration = Duration::from_secs(2);

/// How long a shutdown waits until what was published is written.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Is a connection to NATS: to core NATS, and to JetStream where the server has it.
///
/// Cloning is cheap, clones share the connection. Reconnecting is the client's: it tries for ever unless its options
/// say otherwise, and subscriptions survive. A connection that does not come back ends every subscription with an
/// error.
///
/// # Examples
///
/// ```no_run
/// use throughline_core::broker::Broker;
/// use throughline_nats::{Nats, Subject};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let nats = Nats::connect("localhost:4222").await?;
/// let mut orders = nats.subscribe(&Subject::new("orders.*").queue_group("stock").into()).await?;
/// let received = orders.receive().await?;
/// println!("{}", received.delivery.destination());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Nats {
    connection: Arc<Connection>,
    to_streams: bool,
}

/// Is what publishers and subscribers of one connection share.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) systems: Systems,
    pub(crate) inbox_prefix: Arc<str>,
    pub(crate) records_position: bool,
    /// Stays empty for a client whose events are the user's.
    pub(crate) denied: Arc<Denied>,
    server: Option<(String, u16)>,
    is_owned: bool,
}

impl Nats {
    /// Connects with the client's default options and fails within seconds when no server answers.
    ///
    /// The address is `host`, `host:port` or a URL (`nats://`, `tls://`, also with `user:password@` or `token@`), or a
    /// list of them for a cluster. The port is 4222 when none is given.
    ///
    /// # Errors
    ///
    /// Fails when the address is wrong, no server answers, or the server refuses the credentials. A subscription that
    /// the server's permissions do not allow ends with an error of the kind `Unauthorized`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let nats = throughline_nats::Nats::connect("localhost:4222").await?;
    /// let cluster = throughline_nats::Nats::connect(["one:4222", "two:4222"].as_slice()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(server: impl ToServerAddrs) -> Result<Self, BrokerError> {
        let denied = Arc::new(Denied::default());
        let options = denied.watch(ConnectOptions::new().connection_timeout(CONNECT_WAIT));
        let nats = Self::connect_with(server, options).await?;
        Ok(nats.changed(|connection| connection.denied = denied))
    }

    /// Connects with the client's own options: TLS, credentials, name, reconnects and all else are passed through. User
    /// and password in a URL, which the client itself does not use, are added to them.
    ///
    /// The options' callback for events is the caller's, and the only one the client tells that the server refused a
    /// subscription: to the subscription itself it looks as if no message came. Log the events where permissions are
    /// used; [`connect`](Self::connect) makes an error of them.
    ///
    /// # Errors
    ///
    /// Fails as [`connect`](Self::connect), unless the options say to retry the first connection in the background.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use async_nats::ConnectOptions;
    /// use throughline_nats::Nats;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = ConnectOptions::with_user_and_password("stock".to_owned(), "secret".to_owned());
    /// let options = options.name("stock").require_tls(true);
    /// let nats = Nats::connect_with("nats.example.com", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with(server: impl ToServerAddrs, options: ConnectOptions) -> Result<Self, BrokerError> {
        let addresses = address::read(&server)?;
        let name = address::configured_name(&options);
        let client = match address::with_credentials(options, &addresses).connect(addresses.as_slice()).await {
            Ok(client) => client,
            Err(failed) => return Err(error::connect(failed, &address::shown(&addresses))),
        };
        let server = semconv::server(&addresses).map(|(host, port)| (host.to_owned(), port));
        Ok(Self::new(client, server, name, true))
    }

    /// Uses a connection of the service's own. [`shutdown`](Broker::shutdown) flushes it and leaves it open.
    ///
    /// A subscription that the server refuses is reported to the client's own callback for events alone, as with
    /// [`connect_with`](Self::connect_with).
    ///
    /// The client does not tell which address and name it was given: say so with [`with_server`](Self::with_server) and
    /// [`with_client_id`](Self::with_client_id), else telemetry goes without the address and has the number the server
    /// assigned.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_nats::Nats;
    ///
    /// # async fn example() -> Result<(), async_nats::ConnectError> {
    /// let client = async_nats::connect("localhost:4222").await?;
    /// let nats = Nats::from_client(client).with_server("localhost", 4222).with_client_id("stock");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn from_client(client: Client) -> Self {
        Self::new(client, None, None, false)
    }

    fn new(client: Client, server: Option<(String, u16)>, name: Option<String>, is_owned: bool) -> Self {
        // The number changes with a reconnect; the first one is kept (ATTR-N-07).
        let id = name.or_else(|| client.try_server_info().map(|info| info.client_id.to_string()));
        let connection = Connection {
            jetstream: jetstream::new(client.clone()),
            systems: Systems::new(server.as_ref().map(|(host, port)| (host.as_str(), *port)), id.as_deref()),
            inbox_prefix: semconv::inbox_prefix(&client).into(),
            records_position: false,
            denied: Arc::default(),
            client,
            server,
            is_owned,
        };
        Self { connection: Arc::new(connection), to_streams: false }
    }

    /// Makes plain destinations subjects of streams: publishing returns when the server has stored the message. Replies
    /// to a request and [`CoreSubject`](crate::CoreSubject) still go to core NATS.
    ///
    /// The default is core NATS, as in every NATS client; a single destination is a stream's with
    /// [`StreamSubject`](crate::StreamSubject).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), throughline_core::BrokerError> {
    /// let nats = throughline_nats::Nats::connect("localhost:4222").await?.publish_to_streams();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn publish_to_streams(mut self) -> Self {
        self.to_streams = true;
        self
    }

    /// Uses a JetStream context of the service's own: for a domain, another prefix, another timeout.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), throughline_core::BrokerError> {
    /// let nats = throughline_nats::Nats::connect("localhost:4222").await?;
    /// let hub = async_nats::jetstream::with_domain(nats.client().clone(), "hub");
    /// let nats = nats.with_jetstream(hub);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_jetstream(self, context: jetstream::Context) -> Self {
        self.changed(|connection| connection.jetstream = context)
    }

    /// Sets `server.address` and `server.port` of a client that [`from_client`](Self::from_client) took (ATTR-C-17).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(client: async_nats::Client) {
    /// let nats = throughline_nats::Nats::from_client(client).with_server("localhost", 4222);
    /// # }
    /// ```
    #[must_use]
    pub fn with_server(self, host: impl Into<String>, port: u16) -> Self {
        self.changed(|connection| {
            connection.server = Some((host.into(), port));
            connection.describe(None);
        })
    }

    /// Sets `messaging.client.id`; the default is the name in the options, else the number the server assigned
    /// (ATTR-N-07).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(client: async_nats::Client) {
    /// let nats = throughline_nats::Nats::from_client(client).with_client_id("stock");
    /// # }
    /// ```
    #[must_use]
    pub fn with_client_id(self, id: impl Into<String>) -> Self {
        self.changed(|connection| connection.describe(Some(&id.into())))
    }

    /// Records `messaging.nats.stream` and `messaging.nats.sequence` of messages from streams. Off by default: the
    /// conventions do not have these names yet (ATTR-J-08).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), throughline_core::BrokerError> {
    /// let nats = throughline_nats::Nats::connect("localhost:4222").await?.record_stream_position();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn record_stream_position(self) -> Self {
        self.changed(|connection| connection.records_position = true)
    }

    fn changed(mut self, change: impl FnOnce(&mut Connection)) -> Self {
        change(Arc::make_mut(&mut self.connection));
        self
    }

    /// Returns what publishes on this connection, for code outside of handlers.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let nats = throughline_nats::Nats::connect("localhost:4222").await?;
    /// nats.publisher().publish("orders.placed", "{}").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self)
    }

    /// Returns the client, for whatever is not offered here.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(nats: throughline_nats::Nats) {
    /// println!("at most {} bytes", nats.client().max_payload());
    /// # }
    /// ```
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Returns the JetStream context, to manage streams and consumers.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(nats: throughline_nats::Nats) -> Result<(), Box<dyn std::error::Error>> {
    /// nats.jetstream().delete_stream("ORDERS").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.connection.jetstream
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("server", &self.connection.server)
            .field("to_streams", &self.to_streams)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Nats {
    fn transport(&self) -> Arc<dyn Publish> {
        Arc::new(NatsPublisher { connection: Arc::clone(&self.connection), to_streams: self.to_streams })
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        if subscription.system() != SYSTEM {
            return Err(BrokerError::configuration(format!(
                "`{}` is a subscription for {}: use `Subject` or `Stream` with NATS",
                subscription.destination(),
                subscription.system(),
            )));
        }
        match subscription.native::<Stream>() {
            Some(stream) => Ok(Box::new(StreamSubscriber::open(&self.connection, subscription, stream).await?)),
            None => Ok(Box::new(CoreSubscriber::open(&self.connection, subscription).await?)),
        }
    }

    async fn shutdown(&self) -> Result<(), BrokerError> {
        let client = &self.connection.client;
        let not_flushed =
            |kind| BrokerError::new(kind, error::TIMEOUT, "what was published last may not have been sent");
        match timeout(FLUSH_WAIT, client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => return Err(not_flushed(BrokerErrorKind::Disconnected).with_source(failed)),
            Err(_) => return Err(not_flushed(BrokerErrorKind::Timeout)),
        }
        if self.connection.is_owned && client.drain().await.is_ok() {
            // Draining ends the connection task, and with it everything that is sent to it.
            let ended = async {
                while client.flush().await.is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(FLUSH_WAIT, ended).await.map_err(|_| not_flushed(BrokerErrorKind::Timeout))?;
        }
        Ok(())
    }
}

impl Connection {
    /// Describes the connection anew, with another client id or the one it had.
    fn describe(&mut self, client_id: Option<&str>) {
        let kept = Arc::clone(&self.systems.core);
        let server = self.server.as_ref().map(|(host, port)| (host.as_str(), *port));
        self.systems = Systems::new(server, client_id.or_else(|| kept.client_id()));
    }

    /// Tells whether the client's connection task has ended, of which its state says nothing (PROP-N-07).
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.client.flush().now_or_never(), Some(Err(_)))
    }

    /// Tells whether the client is connected, as far as it knows.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until the server has seen all that was sent before: it answers a request to an inbox that nobody has at
    /// once.
    ///
    /// A server that does not answer, because the credentials do not allow it, is not waited for any longer.
    pub(crate) async fn round_trip(&self) -> Result<(), BrokerError> {
        let request = async_nats::Request::new().timeout(Some(ROUND_TRIP_WAIT));
        let answered = self.client.send_request(self.client.new_inbox(), request).await;
        let timed_out = answered.is_err_and(|failed| failed.kind() == async_nats::RequestErrorKind::TimedOut);
        if self.is_gone() || (timed_out && !self.is_connected()) {
            return Err(BrokerError::new(
                BrokerErrorKind::Disconnected,
                error::SEND_FAILED,
                "the connection to NATS was lost: start nats-server again or correct the URL",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_address_is_a_configuration_error() {
        for address in ["http://localhost", "nats://", "localhost:port"] {
            let error = Nats::connect(address).await.unwrap_err();
            assert!(
                matches!(error.kind(), BrokerErrorKind::Configuration | BrokerErrorKind::Unreachable),
                "{address}: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_error_at_once() {
        let error = Nats::connect("127.0.0.1:1").await.unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Unreachable);
    }
}

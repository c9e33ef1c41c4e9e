use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, ToServerAddrs, jetstream};
use async_trait::async_trait;
use futures_util::future::join_all;
use throughline_core::broker::{
    Broker, BrokerErrorKind, ConnectionState, Existence, HeaderNames, Outbound, Publish, Routes, Subscriber,
    Subscription,
};
use throughline_core::{BrokerError, Publisher};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::connection::Connection;
use crate::denied::Denied;
use crate::header_names::Names;
use crate::jetstream::{StreamSubscriber, check_destination};
use crate::link::Links;
use crate::protocol::{CONTROL_LINE, Line};
use crate::publisher::NatsPublisher;
use crate::renewal::{self, Origin};
use crate::semconv::{SYSTEM, Systems};
use crate::sender::Sender;
use crate::subscriber::CoreSubscriber;
use crate::{Stream, address, error, semconv};

/// How long [`Nats::connect`] waits for each address of the server.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// How long one question to a connection task that is ending is waited for.
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// How many messages of one subscription the client itself holds. What is waiting for handlers is bounded by the subscription; this
/// must only hold what comes until it is looked at.
const CLIENT_BUFFER: usize = 262_144;

/// A connection to NATS: to core NATS, and to JetStream where the server has it.
///
/// Cloning is cheap, clones share the connection. Reconnecting is the client's: it tries for ever unless its options
/// say otherwise, and subscriptions survive. Where the client's own connection task is lost, which a header that it
/// cannot read does, this is logged as an error and a new client connects with the same options; subscriptions and
/// publishers go on with it. A connection that does not come back ends every subscription with an error.
///
/// What was published to core NATS is written in the background, also after the last clone is dropped. A program that
/// ends waits for it with [`shutdown`](Broker::shutdown), which [`serve`](throughline_core::serve()) calls at its end.
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
        let options = ConnectOptions::new().connection_timeout(CONNECT_WAIT).subscription_capacity(CLIENT_BUFFER);
        let options = denied.watch(options);
        let nats = Self::connect_with(server, options).await?;
        Ok(nats.changed(|connection| connection.denied = denied))
    }

    /// Connects with the client's own options: TLS, credentials, name, reconnects and all else are passed through. User
    /// and password in a URL, which the client itself does not use, are added to them.
    ///
    /// A server that is silent is given up after three ping intervals, and the client connects again. Where the options leave the
    /// interval at the client's 60 s, it is 5 s: a connection on which nothing passes any more is an outage of 15 to 20 s, not of
    /// three minutes. Another interval is kept.
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
        let options = address::with_pings(address::with_credentials(options, &addresses));
        let client = match options.clone().connect(addresses.as_slice()).await {
            Ok(client) => client,
            Err(failed) => return Err(error::connect(failed, &address::shown(&addresses))),
        };
        let server = semconv::server(&addresses).map(|(host, port)| (host.to_owned(), port));
        Line::new(CONTROL_LINE).check_inbox(&semconv::inbox_prefix(&client))?;
        let links = renewal::kept(client, Origin { addresses, options });
        Ok(Self::new(links, server, name, true))
    }

    /// Uses a connection of the service's own. [`shutdown`](Broker::shutdown) flushes it and leaves it open.
    ///
    /// How it was made is not known, so it is not made again: when its connection task is lost, subscriptions end with
    /// an error and the service stops.
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
        Self::new(Links::given(client), None, None, false)
    }

    fn new(links: Arc<Links>, server: Option<(String, u16)>, name: Option<String>, is_owned: bool) -> Self {
        let client = &links.current().client;
        // The number changes with a reconnect; the first one is kept (ATTR-N-07).
        let id = name.or_else(|| client.try_server_info().map(|info| info.client_id.to_string()));
        let connection = Connection {
            systems: Systems::new(server.as_ref().map(|(host, port)| (host.as_str(), *port)), id.as_deref()),
            inbox_prefix: semconv::inbox_prefix(client).into(),
            records_position: false,
            names: Names::default(),
            line: Line::new(CONTROL_LINE),
            denied: Arc::default(),
            routes: Routes::default(),
            links,
            server,
            is_owned,
            altered: Arc::default(),
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

    /// Uses JetStream contexts of the service's own: for a domain, another prefix, another timeout. Called at once, and
    /// again for each new client; counts for all clones.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), throughline_core::BrokerError> {
    /// let nats = throughline_nats::Nats::connect("localhost:4222").await?;
    /// let nats = nats.with_jetstream(|client| async_nats::jetstream::with_domain(client, "hub"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_jetstream(self, make: impl Fn(Client) -> jetstream::Context + Send + Sync + 'static) -> Self {
        self.connection.links.make_contexts(Box::new(make));
        self
    }

    /// Sets `server.address` and `server.port` of a client that [`from_client`](Self::from_client) took.
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

    /// Sets `messaging.client.id`; the default is the name in the options, else the number the server assigned.
    #[must_use]
    pub fn with_client_id(self, id: impl Into<String>) -> Self {
        self.changed(|connection| connection.describe(Some(&id.into())))
    }

    /// Records `messaging.nats.stream` and `messaging.nats.sequence` of messages from streams. Off by default: the
    /// conventions do not have these names yet.
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

    /// Sets the names of the headers in which correlation id and media type travel, for all that publishes and consumes on this connection.
    /// The message id stays `Nats-Msg-Id`, and the reply address of core NATS is the message's own.
    ///
    /// From then on a message of a stream may name its reply address too, in the header of that name, as FastStream's requests to a
    /// stream do; the server's own subjects are no such address. One that is published to a stream has it there.
    ///
    /// # Errors
    ///
    /// Fails when a name cannot be used; see [`HeaderNames::check`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::broker::HeaderNames;
    /// use throughline_nats::Nats;
    ///
    /// # async fn example() -> Result<(), throughline_core::BrokerError> {
    /// let nats = Nats::connect("localhost:4222").await?.with_header_names(HeaderNames::faststream())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_header_names(self, names: HeaderNames) -> Result<Self, BrokerError> {
        names.check()?;
        Ok(self.changed(|connection| connection.names = Names::set(names)))
    }

    /// Sets how long a line of the protocol may be, where `max_control_line` of the server is not its default of 4,096 bytes. A
    /// subject that is longer is an error before it is sent, since the server would close the connection.
    #[must_use]
    pub fn with_max_control_line(self, bytes: usize) -> Self {
        self.changed(|connection| connection.line = Line::new(bytes))
    }

    fn changed(mut self, change: impl FnOnce(&mut Connection)) -> Self {
        change(Arc::make_mut(&mut self.connection));
        self
    }

    /// Flushes what was published and closes the connection, within ten seconds. An app that is served needs no call: its shutdown does
    /// that.
    ///
    /// # Errors
    ///
    /// Fails when the flush is not confirmed in time: what was published last may not have been sent.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), throughline_core::BrokerError> {
    /// let broker = throughline_nats::Nats::connect("nats://localhost").await?;
    /// broker.shutdown().await
    /// # }
    /// ```
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        Broker::shutdown(self, tokio::time::Instant::now() + Duration::from_secs(10)).await
    }

    /// Returns what publishes on this connection, for code outside of handlers.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self)
    }

    /// Returns the client in use, for whatever is not offered here. It is another one after its connection task was
    /// lost, so take it anew where it is used; one that is drained counts as lost.
    #[must_use]
    pub fn client(&self) -> Client {
        self.connection.link().client.clone()
    }

    /// Returns the JetStream context in use, to manage streams and consumers; another one as [`client`](Self::client).
    #[must_use]
    pub fn jetstream(&self) -> jetstream::Context {
        self.connection.link().jetstream.clone()
    }

    fn sender(&self) -> Sender {
        Sender { connection: Arc::clone(&self.connection), to_streams: self.to_streams }
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
        Arc::new(NatsPublisher { sender: self.sender() })
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.connection.routes)
    }

    fn connection(&self) -> ConnectionState {
        self.connection.links.connection()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        if subscription.system() != SYSTEM {
            return Err(subscription.refused_by(SYSTEM, "`Subject` or `Stream`"));
        }
        match subscription.native::<Stream>() {
            Some(stream) => Ok(Box::new(StreamSubscriber::open(&self.connection, subscription, stream).await?)),
            None => Ok(Box::new(CoreSubscriber::open(&self.connection, subscription).await?)),
        }
    }

    async fn check_destinations(&self, outbound: &[Outbound<'_>]) -> Vec<Result<Existence, BrokerError>> {
        let sender = self.sender();
        let mut checks = Vec::with_capacity(outbound.len());
        for one in outbound {
            checks.push(check_destination(&sender, one));
        }
        join_all(checks).await
    }

    async fn shutdown(&self, deadline: Instant) -> Result<(), BrokerError> {
        let client = &self.connection.link().client;
        let not_flushed =
            |kind| BrokerError::new(kind, error::TIMEOUT, "what was published last may not have been sent");
        let flushed = timeout_at(deadline, client.flush()).await;
        // From here on a connection task that ends is not lost.
        self.connection.links.end();
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => return Err(not_flushed(BrokerErrorKind::Disconnected).with_source(failed)),
            Err(_) => return Err(not_flushed(BrokerErrorKind::Timeout)),
        }
        if self.connection.is_owned {
            // Draining ends the connection task, and with it everything that is sent to it. What is sent to it just as it ends may stay
            // without an answer, so none is waited for long: the next question fails at once.
            let ended = async {
                if client.drain().await.is_ok() {
                    while !matches!(timeout(ANSWER_WAIT, client.flush()).await, Ok(Err(_))) {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            };
            timeout_at(deadline, ended).await.map_err(|_| not_flushed(BrokerErrorKind::Timeout))?;
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

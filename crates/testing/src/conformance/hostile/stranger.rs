use async_trait::async_trait;
use bytes::Bytes;
use throughline_core::{Destination, Envelope, Publisher};

use super::set::HeaderSet;
use crate::conformance::Harness;

/// What writes hostile messages to a broker, as a program of somebody else would. An adapter's test crate implements it where the
/// adapter's client refuses to write what others may write; [`PlainStranger`] is enough where it refuses nothing.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use throughline_testing::conformance::{Given, HeaderSet, Stranger};
///
/// async fn send_all(stranger: &dyn Stranger, sets: &[HeaderSet]) {
///     for set in sets {
///         let _: Given = stranger.send("orders", set, Bytes::from_static(b"{}")).await;
///     }
/// }
/// ```
#[async_trait]
pub trait Stranger: Send + Sync {
    /// Publishes a body with the headers of a set; returns when the broker has confirmed it or, where it does not confirm, when
    /// the client accepted it.
    async fn send(&self, destination: &str, set: &HeaderSet, body: Bytes) -> Given;

    /// Tells whether a header of that name is the server's own, which is never copied to another message.
    fn is_reserved(&self, _name: &str) -> bool {
        false
    }

    /// The targets under which the client itself logs what it receives; what it says there is not ours.
    fn client_log_targets(&self) -> &'static [&'static str] {
        &[]
    }
}

/// How to get a [`Stranger`] for a broker under test.
///
/// # Examples
///
/// See [`conformance_hostile!`](crate::conformance_hostile).
#[async_trait]
pub trait Strangers: Harness {
    /// Connects a stranger.
    async fn stranger(&self) -> Box<dyn Stranger>;
}

/// How the broker was given a set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Given {
    /// As it is: what arrives is what was sent.
    AsItIs,
    /// Byte by byte on the wire, where it may mean something else than what was sent, but no more.
    ByHand,
    /// Not at all: it would break the receiving client, and is for a test of its own.
    HeldBack,
    /// Not at all: no message of this broker can be so.
    Refused,
}

/// A stranger that writes with the adapter's own publisher, without telemetry.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::{Harness, PlainStranger};
///
/// async fn stranger<H: Harness>(harness: &H) -> PlainStranger {
///     PlainStranger::new(harness).await
/// }
/// ```
#[derive(Debug)]
pub struct PlainStranger {
    publisher: Publisher,
}

impl PlainStranger {
    /// Creates one with a connection of its own.
    ///
    /// # Examples
    ///
    /// See [`PlainStranger`].
    pub async fn new<H: Harness>(harness: &H) -> Self {
        Self { publisher: Publisher::new(&harness.connect().await).without_telemetry() }
    }
}

#[async_trait]
impl Stranger for PlainStranger {
    async fn send(&self, destination: &str, set: &HeaderSet, body: Bytes) -> Given {
        let mut envelope = Envelope::new(Destination::new(destination), body);
        for (name, value) in &set.headers {
            let Ok(name) = String::from_utf8(name.clone()) else { return Given::Refused };
            envelope.headers_mut().append(name, value.clone());
        }
        match self.publisher.publish_envelope(envelope).await {
            Ok(_) => Given::AsItIs,
            Err(_) => Given::Refused,
        }
    }
}

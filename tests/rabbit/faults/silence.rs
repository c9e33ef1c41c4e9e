//! A server that is there and confirms nothing any more: the publisher goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream as streams};
use lapin::types::AMQPValue;
use throughline_core::broker::{Broker as _, ConnectionState, Publish};
use throughline_core::{Envelope, PublishError};
use throughline_rabbit::{PublishFailure, Rabbit, RabbitOptions};

use crate::load::until;
use crate::log::Log;
use crate::proxy::Proxy;
use crate::server::{self, Plain, Server, host_and_port, unique};

/// The connection that a line of the log is about.
const PUBLISHING: &str = "connection=\"publishing\"";

/// How long an answer is waited for here.
const SHORT: Duration = Duration::from_secs(2);

/// A queue that is published to through a proxy, with little patience and room for two.
struct Given {
    plain: Plain,
    queue: String,
    proxy: Proxy,
    rabbit: Rabbit,
    transport: Arc<dyn Publish>,
}

impl Given {
    async fn new(url: &str) -> Self {
        let (plain, queue) = (Plain::connect(url).await, unique("silence"));
        plain.declare(&queue, &[]).await;
        let proxy = Proxy::start(host_and_port(url).1).await;
        let options = RabbitOptions::new().max_unconfirmed(2).confirm_timeout(SHORT).answer_timeout(SHORT);
        let rabbit = Rabbit::connect_with(proxy.url(), options).await.expect("a connection");
        let given = Self { plain, queue, proxy, transport: rabbit.transport(), rabbit };
        // The first one proves the exchange, the second one opens the channel.
        for _ in 0..2 {
            given.publish().await.expect("published");
        }
        assert_eq!(given.proxy.connections(), 2);
        given
    }

    async fn publish(&self) -> Result<(), PublishError> {
        self.transport.publish(Envelope::new(self.queue.clone(), "x")).await.map(drop)
    }

    /// As many as there is room for are not confirmed.
    async fn is_not_confirmed(&self) {
        let (one, other) = tokio::join!(self.publish(), self.publish());
        for failed in [one, other] {
            let failed = failed.expect_err("nothing confirms it");
            assert_eq!(
                (failed.error_type(), PublishFailure::of(&failed)),
                ("timeout", Some(PublishFailure::MaybeStored)),
                "{failed}"
            );
        }
    }

    /// There is room again, and all that is published now is stored.
    async fn goes_on(&self) {
        let messages = (0..8).map(|_| Envelope::new(self.queue.clone(), "x")).collect();
        let results = self.transport.publish_batch(messages).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    async fn stored(&self) -> u32 {
        self.plain.count(&self.queue).await.0
    }
}

/// So a connection looks whose channel a server holds back for ever.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_connection_that_the_server_does_not_read_any_more_is_replaced() {
    let (log, _guards) = Log::capture();
    let given = Given::new(&server::url()).await;
    given.proxy.leave_unread();
    given.is_not_confirmed().await;
    given.goes_on().await;
    assert_eq!((given.stored().await, given.proxy.connections()), (10, 3));
    assert_eq!(given.rabbit.connection(), ConnectionState::Connected);
    for told in ["confirms nothing on a channel", "is lost: the adapter connects again"] {
        let lines = log.with(&[told, PUBLISHING]);
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    given.plain.delete(&given.queue).await;
}

/// So a channel looks that waits for one queue for ever: the others of its connection go on.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_channel_on_which_nothing_is_confirmed_any_more_takes_no_further_message() {
    let (log, _guards) = Log::capture();
    let given = Given::new(&server::url()).await;
    given.proxy.keep_confirms();
    given.is_not_confirmed().await;
    given.goes_on().await;
    assert_eq!((given.stored().await, given.proxy.connections()), (12, 2), "it was stored, and the connection stays");
    assert_eq!(log.with(&["confirms nothing on a channel", PUBLISHING]).len(), 1);
    given.plain.delete(&given.queue).await;
}

/// A server that is real: 3.10 stops to read the connection then, or ends it with an internal error; 4 does the latter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn publishing_goes_on_when_a_quorum_queue_is_deleted_with_a_thousand_messages_on_their_way() {
    const AT_A_TIME: usize = 1_000;
    let (url, queue) = (server::url(), unique("silence"));
    let quorum = [("x-queue-type", AMQPValue::LongString("quorum".into()))];
    let plain = Plain::connect(&url).await;
    plain.declare(&queue, &quorum).await;
    let options = RabbitOptions::new().confirm_timeout(SHORT).answer_timeout(SHORT);
    let rabbit = Rabbit::connect_with(url, options).await.expect("a connection");
    let (transport, name, stored) = (rabbit.transport(), queue.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&stored);
    let publishing = tokio::spawn(async move {
        let publish = |_| transport.publish(Envelope::new(name.clone(), vec![b'x'; 256]));
        let mut results = streams::repeat(()).map(publish).buffer_unordered(AT_A_TIME);
        while let Some(result) = results.next().await {
            counted.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
        }
    });
    let stored = || stored.load(Ordering::SeqCst);
    // The server is held up by less than every second one.
    for _ in 0..4 {
        let before = stored();
        until("publishing goes on", || stored() > before + 5 * AT_A_TIME).await;
        plain.delete(&queue).await;
        plain.declare(&queue, &quorum).await;
    }
    let before = stored();
    until("publishing goes on", || stored() > before + 5 * AT_A_TIME).await;
    publishing.abort();
    plain.delete(&queue).await;
}

/// In an alarm the server reads nothing either, and says so.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn an_alarm_is_no_reason_for_another_connection() {
    let server = Server::start().await;
    let given = Given::new(&server.url()).await;
    server.control(&["set_vm_memory_high_watermark", "0"]).await;
    given.is_not_confirmed().await;
    until("the alarm shows", || matches!(given.rabbit.connection(), ConnectionState::Blocked { .. })).await;
    // Far longer than a connection has that is not read.
    let failed = tokio::time::timeout(4 * SHORT, given.publish()).await;
    assert!(failed.is_err(), "it waits for the end of the alarm: {failed:?}");
    server.control(&["set_vm_memory_high_watermark", "0.6"]).await;
    given.goes_on().await;
    assert_eq!((given.stored().await, given.proxy.connections()), (12, 2));
    server.remove().await;
}

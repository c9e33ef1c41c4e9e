//! Servers, connections, channels and queues that go away and come back under load: every message is counted by its number.
//!
//! Each test prints its counts: `cargo xtask test --broker rabbit -- --nocapture faults` shows them.

use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use throughline_core::broker::{Broker as _, ConnectionState};
use throughline_core::serve::Running;
use throughline_core::{App, Envelope, Settlement};
use throughline_rabbit::{Exchange, Queue, Rabbit, ToExchange};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::load::{self, AT_A_TIME, Load, MESSAGES, PATIENCE, Publishing, Sent, Sum, start};
use crate::proxy::Proxy;
use crate::server::{Plain, Server, unique};

#[path = "faults/services.rs"]
mod services;
#[path = "faults/silence.rs"]
mod silence;

/// How many messages a consumer has at most that are not settled.
const PREFETCH: usize = load::PREFETCH as usize;

/// A queue with two consumers and a publisher at work: they have begun, and do not end before what is to happen has happened.
struct Busy {
    load: Load,
    kind: &'static str,
    consumers: Vec<Running>,
    publishing: Publishing,
}

impl Busy {
    async fn start(load: Load, kind: &'static str) -> Self {
        let url = load.url.clone();
        Self::start_at(&url, load, kind).await
    }

    /// With another way to the server.
    async fn start_at(url: &str, load: Load, kind: &'static str) -> Self {
        let consumers = vec![load.consumer_at(url, 1).await, load.consumer_at(url, 2).await];
        let publishing = load.publish_at(url);
        load.account.reach(MESSAGES / 5).await;
        Self { load, kind, consumers, publishing }
    }

    /// Waits until the work goes on, ends it, and counts.
    async fn count(self, server: &Server, what: &str) -> (Sum, Sent) {
        let Self { load, kind, consumers, publishing } = self;
        load.account.reach(load.account.distinct() as u64 + 1_000).await;
        let sent = publishing.end().await;
        load.account.reach(sent.published).await;
        assert_two_consumers(server, &load.name).await;
        for consumer in consumers {
            consumer.shutdown().await.expect("the consumer stops");
        }
        (load.account.sum(&format!("{what}, {kind} queue"), sent), sent)
    }
}

/// A classic and a quorum queue.
fn loads(url: &str) -> [(Load, &'static str); 2] {
    [(Load::new(url, |queue| queue), "classic"), (Load::new(url, Queue::quorum), "quorum")]
}

/// A server with both kinds of queue, which are in use.
async fn busy(server: &Server) -> [Busy; 2] {
    let [(classic, _), (quorum, _)] = loads(&server.url());
    tokio::join!(Busy::start(classic, "classic"), Busy::start(quorum, "quorum")).into()
}

/// The server has just the consumers that there are, and nothing is left unsettled.
async fn assert_two_consumers(server: &Server, queue: &str) {
    let expected = format!("{queue}\t2\t0\t0");
    let queues =
        ["list_queues", "name", "consumers", "messages_ready", "messages_unacknowledged", "--no-table-headers"];
    server.until(&queues, |said| said.lines().any(|line| line == expected)).await;
}

/// What follows a fault: nothing is lost, and what comes again was not settled or was published once more.
async fn none_is_lost(server: &Server, all: [Busy; 2], what: &str, most_again: Option<usize>) {
    for busy in all {
        let (sum, sent) = busy.count(server, what).await;
        assert_eq!(sum.lost, 0);
        assert!(sum.twice <= sent.maybe, "{sum:?}: {sent}");
        if let Some(most) = most_again {
            assert!(sum.again <= most + sent.maybe, "{sum:?}: {sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_server_that_is_stopped_and_started_again_loses_nothing() {
    let mut server = Server::start().await;
    let all = busy(&server).await;
    server.stop().await;
    server.start_again().await;
    none_is_lost(&server, all, "the server is stopped and started again", None).await;
    server.remove().await;
}

/// What the server had confirmed is there, and so is what it had not written of the acknowledgements: that comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_server_that_is_killed_and_started_again_loses_nothing() {
    let mut server = Server::start().await;
    let all = busy(&server).await;
    server.kill().await;
    server.start_again().await;
    none_is_lost(&server, all, "the server is killed and started again", None).await;
    server.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn connections_that_the_management_command_closes_lose_nothing() {
    let server = Server::start().await;
    let all = busy(&server).await;
    server.control(&["close_all_connections", "a test"]).await;
    none_is_lost(&server, all, "all connections are closed", Some(2 * PREFETCH)).await;
    server.remove().await;
}

/// Somebody else acknowledges on the channel of each consumer what it was not given: 406, and the channel is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn channels_that_an_acknowledgement_of_somebody_else_closes_lose_nothing() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port()).await;
    for (load, kind) in loads(&server.url()) {
        let busy = Busy::start_at(&proxy.url(), load, kind).await;
        assert_eq!(proxy.acknowledge_what_is_not_there(), 2, "both consumers have a channel");
        let (sum, sent) = busy.count(&server, "channels are closed by a foreign acknowledgement").await;
        assert_eq!((sum.lost, sum.twice, sent.again()), (0, 0, 0), "the publisher's channel is another one");
        // It did happen: what was not settled came again.
        assert!((1..=2 * PREFETCH).contains(&sum.again), "{sum:?}");
    }
    server.remove().await;
}

/// The messages in it are gone with it, as whoever deleted it wanted; nothing that is published after it. Whoever publishes hears
/// of each message that comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_queue_that_is_deleted_is_made_again_and_takes_what_comes_after_it() {
    let server = Server::start().await;
    let plain = Plain::connect(&server.url()).await;
    for (mut load, kind) in loads(&server.url()) {
        // The server says nothing of those on their way to a quorum queue: they may have been stored.
        load.confirmed_within = Duration::from_secs(45);
        let proxy = Proxy::start(server.port()).await;
        let Busy { load, consumers, publishing, .. } = Busy::start_at(&proxy.url(), load, kind).await;
        let deleted = plain.channel.queue_delete(load.name.as_str().into(), QueueDeleteOptions::default());
        let deleted = deleted.await.expect("the queue is deleted");
        // Those that were in it, those that the consumers had of it, and those on their way to it.
        let most_lost = deleted as usize + 2 * PREFETCH + AT_A_TIME as usize;
        let (begun, account) = (publishing.begun(), &load.account);
        account.take_away(most_lost);
        account.reach(account.distinct() as u64 + 1_000).await;
        let sent = publishing.end().await;
        let is_there = || account.missing(sent.published).iter().all(|number| *number < begun);
        load::until("what is published after it is handled", is_there).await;
        assert_two_consumers(&server, &load.name).await;
        for consumer in consumers {
            consumer.shutdown().await.expect("the consumer stops");
        }
        let sum = account.sum(&format!("the {kind} queue is deleted with {deleted} messages"), sent);
        assert!(sum.lost <= most_lost, "{sum:?}");
        assert_eq!(sent.returned, proxy.returns());
        assert!(sum.again <= sent.maybe && sent.maybe <= AT_A_TIME as usize, "{sum:?}: {sent}");
    }
    server.remove().await;
}

/// Publishes wait, while those that consume go on; nothing is lost or handled twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn an_alarm_loses_nothing_and_repeats_nothing() {
    let server = Server::start().await;
    let watching = load::connect(&server.url()).await;
    let all = busy(&server).await;
    server.control(&["set_vm_memory_high_watermark", "0"]).await;
    // The server tells a connection that publishes.
    let (waiting, name) = (watching.transport(), all[0].load.name.clone());
    let late = tokio::spawn(async move { waiting.publish(Envelope::new(name, "0")).await });
    load::until("the alarm shows", || matches!(watching.connection(), ConnectionState::Blocked { .. })).await;
    // The consumers empty the queues meanwhile.
    let queues = ["list_queues", "messages", "--no-table-headers"];
    server.until(&queues, |said| said.lines().count() == 2 && said.lines().all(|line| line.trim() == "0")).await;
    server.control(&["set_vm_memory_high_watermark", "0.6"]).await;
    late.await.expect("no panic").expect("it is published once the alarm is over");
    load::until("the alarm is over", || watching.connection() == ConnectionState::Connected).await;
    for (index, busy) in all.into_iter().enumerate() {
        let (sum, sent) = busy.count(&server, "an alarm is set and cleared").await;
        // The first queue got one message more.
        assert_eq!((sum.lost, sum.again, sent.again()), (0, usize::from(index == 0), 0));
    }
    server.remove().await;
}

/// One consumer with one message at a time, whose connection is closed three times: the order of the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn the_order_of_a_queue_is_kept_when_connections_are_closed() {
    let server = Server::start().await;
    for (load, kind) in loads(&server.url()) {
        // All is there before: a publisher that publishes once more changes the order.
        load.fill().await;
        let consumer = load.consumer(1).await;
        for times in 1..=3 {
            // However long the server's own tool takes.
            load.account.hold_at((times + 1) * MESSAGES / 5);
            load.account.reach(times * MESSAGES / 5).await;
            server.control(&["close_all_connections", "a test"]).await;
        }
        load.account.hold_at(u64::MAX);
        load.account.reach(MESSAGES).await;
        consumer.shutdown().await.expect("the consumer stops");
        let what = format!("one consumer, all connections are closed 3 times, {kind} queue");
        let sum = load.account.sum(&what, Sent::all(MESSAGES));
        assert_eq!(sum.lost, 0);
        assert!(sum.again <= 3 * PREFETCH, "{sum:?}");
        load.account.assert_ordered();
    }
    server.remove().await;
}

/// A queue with a name and one without, and what publishes to them.
struct Reconnecting {
    server: Server,
    queue: String,
    topic: String,
    fanout: String,
    publisher: Rabbit,
    handled: mpsc::UnboundedReceiver<(&'static str, String)>,
}

impl Reconnecting {
    async fn start() -> (Self, Running) {
        let server = Server::start().await;
        let [queue, topic, fanout] = ["orders", "events", "news"].map(unique);
        let (seen, handled) = mpsc::unbounded_channel();
        let tell = |place: &'static str| {
            let seen = seen.clone();
            move |body: String| {
                seen.send((place, body)).expect("the test listens");
                async {}
            }
        };
        let app = App::new()
            .subscribe(Queue::new(queue.as_str()).bind(Exchange::topic(topic.as_str()), "eu.*"), tell("named"))
            .subscribe(Queue::generated().bind(Exchange::fanout(fanout.as_str()), ""), tell("generated"));
        let running = start(&server.url(), app).await;
        let publisher = load::connect(&server.url()).await;
        (Self { server, queue, topic, fanout, publisher, handled }, running)
    }

    /// A message comes through each queue.
    async fn comes_through(&mut self, round: usize) {
        let (topic, fanout) = (self.topic.clone(), self.fanout.clone());
        for (place, to) in [("named", ToExchange::new(topic).key("eu.de")), ("generated", ToExchange::new(fanout))] {
            // Until there is a queue again, nothing takes it.
            let deadline = Instant::now() + PATIENCE;
            while self.publisher.publisher().publish(to.clone(), round.to_string()).await.is_err() {
                assert!(Instant::now() < deadline, "round {round}: the {place} queue is not there");
                sleep(Duration::from_millis(20)).await;
            }
            let next = async { while self.handled.recv().await != Some((place, round.to_string())) {} };
            timeout(PATIENCE, next).await.expect("the message is handled in time");
        }
    }
}

/// After ten reconnects the server lists one consumer of each subscription, each binding once, and one queue that it named itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn ten_reconnects_leave_one_consumer_and_one_binding_of_each() {
    let (mut all, running) = Reconnecting::start().await;
    all.comes_through(0).await;
    for round in 1..=10 {
        all.server.control(&["close_all_connections", "a test"]).await;
        all.comes_through(round).await;
    }
    let list = async |what: &[&str]| all.server.control(&[what, &["--no-table-headers"]].concat()).await;
    let consumers = list(&["list_consumers", "queue_name"]).await;
    let (named, generated): (Vec<&str>, Vec<&str>) = consumers.lines().partition(|name| **name == *all.queue);
    assert_eq!((named.len(), generated.len()), (1, 1), "{consumers}");
    assert!(generated[0].starts_with("amq.gen"), "{consumers}");
    let bindings = list(&["list_bindings", "source_name", "destination_name"]).await;
    for (exchange, to) in [(&all.topic, all.queue.as_str()), (&all.fanout, generated[0])] {
        let of: Vec<_> = bindings.lines().filter(|line| line.starts_with(exchange.as_str())).collect();
        assert_eq!(of, [format!("{exchange}\t{to}")], "{bindings}");
    }
    assert_eq!(list(&["list_queues", "name"]).await.lines().count(), 2);
    // Two of the service, two of the publisher.
    assert_eq!(list(&["list_connections", "pid"]).await.lines().count(), 4);
    running.shutdown().await.expect("the service stops");
    all.server.remove().await;
}

/// What the others of the connection need is made again after each reconnect, and nothing of a subscription that has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn ten_reconnects_make_nothing_again_that_was_removed() {
    let server = Server::start().await;
    let (rabbit, plain) = (load::connect(&server.url()).await, Plain::connect(&server.url()).await);
    let [fleeting, deleted, stays, exchange] = ["fleeting", "deleted", "stays", "events"].map(unique);
    let bound = |name: &str| Queue::new(name).bind(Exchange::topic(exchange.as_str()).auto_delete(), "key");
    for gone in [bound(&fleeting).auto_delete(), bound(&deleted)] {
        let mut subscriber = rabbit.subscribe(&gone.into()).await.expect("a subscription");
        subscriber.begin().await.expect("a consumer");
        let deadline = Instant::now() + PATIENCE;
        subscriber.close(deadline).await;
        subscriber.finish(deadline).await.expect("an end");
    }
    // The first one went with its consumer, and the exchange with its last queue.
    plain.channel.queue_delete(deleted.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
    let mut subscriber = rabbit.subscribe(&Queue::new(stays.as_str()).into()).await.expect("a subscription");
    for round in 0..=10 {
        if round > 0 {
            server.control(&["close_all_connections", "a test"]).await;
        }
        let deadline = Instant::now() + PATIENCE;
        while rabbit.publisher().publish(stays.clone(), round.to_string()).await.is_err() {
            assert!(Instant::now() < deadline, "round {round}: it is published");
        }
        let again = async {
            loop {
                let mut received = subscriber.receive().await.expect("a message");
                let _ = received.settle(&Settlement::Ack).await;
                if received.delivery.payload().as_ref() == round.to_string().as_bytes() {
                    break;
                }
            }
        };
        timeout(PATIENCE, again).await.expect("the message comes in time");
    }
    let list = async |what: &[&str]| server.control(&[what, &["--no-table-headers"]].concat()).await;
    assert_eq!(list(&["list_queues", "name"]).await.trim(), stays);
    assert!(!list(&["list_exchanges", "name"]).await.contains(&exchange));
    assert_eq!(list(&["list_consumers", "queue_name"]).await.trim(), stays);
    drop(subscriber);
    rabbit.close().await.expect("it is closed");
    server.remove().await;
}

/// The next one goes on when the first has handed all back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn the_order_is_kept_when_a_single_active_consumer_gives_way() {
    let url = crate::server::url();
    for (kind, make) in [("classic", (|queue| queue) as fn(Queue) -> Queue), ("quorum", Queue::quorum)] {
        let load = Load::new(&url, |queue| make(queue).single_active_consumer());
        load.fill().await;
        let mut active = load.consumer(1).await;
        for number in 2..=6 {
            let next = load.consumer(number).await;
            load.account.reach_by(number - 1, 300).await;
            active.shutdown().await.expect("the consumer stops");
            active = next;
        }
        load.account.reach(MESSAGES).await;
        active.shutdown().await.expect("the last consumer stops");
        let sum =
            load.account.sum(&format!("a single active consumer gives way 5 times, {kind} queue"), Sent::all(MESSAGES));
        assert_eq!((sum.lost, sum.again), (0, 0));
        load.account.assert_ordered();
        Plain::connect(&url).await.delete(&load.name).await;
    }
}

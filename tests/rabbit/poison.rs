//! A message that the client cannot read: it ends the connection that receives it, and comes again on the next one.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use throughline_core::App;
use throughline_core::serve::{HealthState, Running};
use throughline_rabbit::Queue;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::load::{start, until};
use crate::log::Log;
use crate::proxy::{Proxy, UNREADABLE};
use crate::server::{self, KEPT, PATIENCE, Plain, Server, host_and_port, unique};

/// A service with one queue that gets such messages and one that does not.
struct Given {
    plain: Plain,
    /// Comes through a proxy that spoils what it writes.
    spoiled: Plain,
    sick: String,
    sound: String,
    handled: mpsc::UnboundedReceiver<(String, String)>,
    /// What came while something else was waited for: the queues overtake each other.
    earlier: Vec<(String, String)>,
}

impl Given {
    async fn start(url: &str, make: impl FnOnce(Queue) -> Queue) -> (Self, Running) {
        let proxy = Proxy::start(host_and_port(url).1).await;
        let [sick, sound] = ["sick", "sound"].map(unique);
        let (seen, handled) = mpsc::unbounded_channel();
        let tell = |name: &str| {
            let (seen, name) = (seen.clone(), name.to_owned());
            move |body: String| {
                seen.send((name.clone(), body)).expect("the test listens");
                async {}
            }
        };
        let app = App::new()
            .subscribe(make(Queue::new(sick.as_str()).expires(KEPT)), tell(&sick))
            .subscribe(Queue::new(sound.as_str()).expires(KEPT), tell(&sound));
        let running = start(url, app).await;
        let (plain, spoiled) = (Plain::connect(url).await, Plain::connect(&proxy.url()).await);
        (Self { plain, spoiled, sick, sound, handled, earlier: Vec::new() }, running)
    }

    /// Publishes a message of which something is not UTF-8.
    async fn poison(&self, properties: BasicProperties) {
        publish(&self.spoiled.channel, &self.sick, "unreadable", properties).await;
    }

    async fn publish(&self, queue: &str, body: &str) {
        publish(&self.plain.channel, queue, body, BasicProperties::default()).await;
    }

    /// Removes the message, and waits until the next one is handled.
    async fn goes_on_without_it(&mut self) {
        let (name, deadline) = (self.sick.clone(), Instant::now() + PATIENCE);
        let mut is_handled = false;
        while !is_handled {
            assert!(Instant::now() < deadline, "the subscription goes on");
            // It is not in the queue at the moment when it is delivered.
            let purged = self.plain.channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default());
            purged.await.expect("an answer");
            self.publish(&name, "after it").await;
            let next = async { while self.handled.recv().await != Some((name.clone(), "after it".to_owned())) {} };
            is_handled = timeout(Duration::from_secs(1), next).await.is_ok();
        }
        self.earlier.clear();
    }

    /// Waits until a message of a queue is handled.
    async fn handles(&mut self, queue: &str, body: &str) {
        let awaited = (queue.to_owned(), body.to_owned());
        if let Some(place) = self.earlier.iter().position(|handled| *handled == awaited) {
            self.earlier.swap_remove(place);
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout_at(deadline, self.handled.recv()).await {
                Ok(Some(handled)) if handled == awaited => return,
                Ok(handled) => self.earlier.push(handled.expect("the service lives")),
                Err(_) => panic!("{awaited:?} is not handled in time, but {:?}", self.earlier),
            }
        }
    }
}

async fn publish(channel: &Channel, queue: &str, body: &str, properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
    published.await.expect("published").await.expect("published");
}

fn correlated() -> BasicProperties {
    BasicProperties::default().with_correlation_id(UNREADABLE.into())
}

/// What health says of the subscription to a queue.
fn degraded(running: &Running, queue: &str) -> Option<String> {
    running.health().subscriptions().iter().find(|one| one.destination.contains(queue)).and_then(|one| {
        match &one.state {
            HealthState::Degraded(why) => Some(why.to_string()),
            _ => None,
        }
    })
}

/// Its subscription stands still and says so, what lies before it is handled, the others go on; when it is gone, all go on.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn an_unreadable_message_stops_its_own_subscription_alone() {
    let server = Server::start().await;
    let (log, _guard) = Log::capture();
    let (mut given, running) = Given::start(&server.url(), |queue| queue.prefetch(5)).await;
    let (sick, sound) = (given.sick.clone(), given.sound.clone());
    let mut headers = FieldTable::default();
    headers.insert(UNREADABLE.into(), AMQPValue::Boolean(true));
    for properties in [
        correlated(),
        BasicProperties::default().with_message_id(UNREADABLE.into()),
        BasicProperties::default().with_headers(headers),
    ] {
        given.publish(&sick, "before it").await;
        given.poison(properties).await;
        given.publish(&sick, "behind it").await;
        given.handles(&sick, "before it").await;
        let is_told =
            || degraded(&running, &sick).is_some_and(|why| why.contains("not UTF-8") && why.contains("remove it"));
        until("health says so", is_told).await;
        // The connection of all is as it was: nothing of the other queue comes twice or waits.
        for number in 0..20 {
            given.publish(&sound, &number.to_string()).await;
            given.handles(&sound, &number.to_string()).await;
        }
        assert_eq!(degraded(&running, &sound), None);
        given.goes_on_without_it().await;
        until("health says nothing more", || degraded(&running, &sick).is_none()).await;
    }
    let told = log.with(&["log ERROR", &sick, "not UTF-8", "dead-letter"]);
    assert!(!told.is_empty() && told.len() < 20, "{told:#?}");
    assert_eq!(log.with(&["log ERROR"]).len(), told.len(), "of no other subscription");
    running.shutdown().await.expect("the service stops");
    server.remove().await;
}

/// The server counts how often it has delivered it, so it goes by itself, and takes no other message with it.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_delivery_limit_takes_an_unreadable_message_away() {
    let dead = unique("dead");
    let with_limit = |queue: Queue| queue.quorum().delivery_limit(3).dead_letter_exchange("", &dead);
    let (mut given, running) = Given::start(&server::url(), with_limit).await;
    given.plain.declare(&dead, &[]).await;
    let (sick, sound) = (given.sick.clone(), given.sound.clone());
    given.poison(correlated()).await;
    for body in ["one", "two", "three"] {
        given.publish(&sick, body).await;
    }
    given.publish(&sound, "meanwhile").await;
    given.handles(&sound, "meanwhile").await;
    for body in ["one", "two", "three"] {
        given.handles(&sick, body).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while given.plain.count(&dead).await.0 == 0 {
        assert!(Instant::now() < deadline, "it is dead-lettered");
    }
    given.publish(&sick, "after it").await;
    given.handles(&sick, "after it").await;
    until("health says nothing more", || degraded(&running, &sick).is_none()).await;
    assert_eq!(given.plain.count(&dead).await.0, 1, "the message itself, and no other");
    running.shutdown().await.expect("the service stops");
    for queue in [&dead, &sick, &sound] {
        given.plain.delete(queue).await;
    }
}

/// Each subscription has one consumer, on the connection of all.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn the_others_return_to_the_connection_of_all() {
    let server = Server::start().await;
    let (given, running) = Given::start(&server.url(), |queue| queue).await;
    let connections = ["list_connections", "pid", "--no-table-headers"];
    // Two of the service, and those of the test.
    let before = server.control(&connections).await.lines().count();
    given.poison(correlated()).await;
    until("health says so", || degraded(&running, &given.sick).is_some_and(|why| why.contains("not UTF-8"))).await;
    // That of the subscription that stands still comes and goes.
    let deadline = Instant::now() + PATIENCE;
    let mut most = usize::MAX;
    while most > before + 1 {
        assert!(Instant::now() < deadline, "{most} connections, and {before} before");
        most = server.control(&connections).await.lines().count();
    }
    let consumers = server.control(&["list_consumers", "queue_name", "channel_pid", "--no-table-headers"]).await;
    let of_sound = consumers.lines().filter(|line| line.starts_with(given.sound.as_str())).count();
    assert_eq!(of_sound, 1, "{consumers}");
    running.shutdown().await.expect("the service stops");
    server.remove().await;
}

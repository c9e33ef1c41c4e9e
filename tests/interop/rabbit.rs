//! FastStream on RabbitMQ.

use std::time::Duration;

use throughline_core::broker::Subscription;
use throughline_rabbit::{Queue, Rabbit};
use tokio::process::Command;

use crate::baggage::Reads;
use crate::handlers::{BATCH, BATCH_WAIT, Subscriptions};
use crate::peer::{named, script};
use crate::world::{Services, World};
use crate::{baggage, cases};

/// How long a queue of a test that failed is kept.
const KEPT: Duration = Duration::from_secs(300);

async fn services() -> Services {
    let mut peer = Command::new(named("THROUGHLINE_FASTSTREAM_PYTHON"));
    peer.arg(script("faststream_rabbit.py"));
    start("python", peer).await
}

/// Starts a service in this language, with the arguments of all peers, and ours.
pub(crate) async fn start(language: &'static str, mut peer: Command) -> Services {
    let (world, url) = (World::new().await, named("THROUGHLINE_RABBIT_URL"));
    peer.args([&url, &world.endpoint(), world.run()]);
    let queue = |name| Queue::new(world.name(name)).expires(KEPT);
    let from = Subscriptions {
        relay: queue("rust.relay").into(),
        end: queue("rust.end").into(),
        batch: Some(queue("rust.batch").batch(BATCH, BATCH_WAIT).into()),
        answer: Some(Subscription::from(queue("rust.answer"))),
    };
    let rabbit = Rabbit::connect(url.as_str()).await.expect("RabbitMQ");
    world.start(language, peer, rabbit, from).await
}

#[tokio::test]
#[ignore = "needs RabbitMQ, Python and a Collector: cargo xtask interop"]
async fn a_message_goes_there_and_back_in_one_trace() {
    let mut services = services().await;
    cases::there_and_back(&mut services).await;
    // FastStream passes on the context that it got, so what follows is not below what it did.
    services.made("rabbit-messages.txt").await;
}

/// FastStream has no batches on RabbitMQ: it publishes and handles each message by itself.
#[tokio::test]
#[ignore = "needs RabbitMQ, Python and a Collector: cargo xtask interop"]
async fn each_message_of_a_batch_stays_in_its_trace() {
    let mut services = services().await;
    cases::our_batch(&mut services, "publish").await;
    cases::our_messages(&mut services).await;
    services.made("rabbit-batch.txt").await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ, Python and a Collector: cargo xtask interop"]
async fn a_request_is_answered_in_its_trace() {
    let mut services = services().await;
    cases::requests(&mut services).await;
    services.made("rabbit-requests.txt").await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ, Python and a Collector: cargo xtask interop"]
async fn baggage_is_equal_on_both_ends() {
    baggage::is_equal_on_both_ends(services().await, Reads::All).await;
}

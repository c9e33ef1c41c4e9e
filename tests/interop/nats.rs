//! FastStream on NATS: core and JetStream.

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, StorageType};
use throughline_core::broker::{HeaderNames, Subscription};
use throughline_nats::{Nats, Stream, Subject};
use tokio::process::Command;

use crate::baggage::Reads;
use crate::handlers::{BATCH, BATCH_WAIT, Subscriptions};
use crate::peer::{named, script};
use crate::world::{Services, World};
use crate::{baggage, cases};

async fn connect(language: &str) -> Nats {
    let nats = Nats::connect(named("THROUGHLINE_NATS_URL").as_str()).await.expect("NATS");
    if language != "python" {
        return nats;
    }
    nats.with_header_names(HeaderNames::faststream()).expect("its names")
}

fn faststream(world: &World, kind: &str) -> Command {
    let mut peer = Command::new(named("THROUGHLINE_FASTSTREAM_PYTHON"));
    let url = named("THROUGHLINE_NATS_URL");
    peer.arg(script("faststream_nats.py")).args([&url, &world.endpoint(), world.run(), kind]);
    peer
}

async fn core() -> Services {
    start("python", |world| faststream(world, "core")).await
}

/// Starts a service in this language, and ours.
pub(crate) async fn start(language: &'static str, peer: impl FnOnce(&World) -> Command) -> Services {
    let world = World::new().await;
    let subject = |name| Subject::new(world.name(name));
    let from = Subscriptions {
        relay: subject("rust.relay").into(),
        end: subject("rust.end").into(),
        batch: Some(subject("rust.batch").batch(BATCH, BATCH_WAIT).into()),
        answer: Some(Subscription::from(subject("rust.answer"))),
    };
    let peer = peer(&world);
    world.start(language, peer, connect(language).await, from).await
}

async fn jetstream() -> Services {
    let (world, nats) = (World::new().await, connect("python").await);
    let config = Config {
        name: world.run().to_owned(),
        subjects: vec![world.name(">")],
        storage: StorageType::Memory,
        ..Config::default()
    };
    jetstream::new(nats.client()).create_stream(config).await.expect("a stream");
    let stream = |name: &str| Stream::new(world.run()).durable(name.replace('.', "-")).filter(world.name(name));
    let from = Subscriptions {
        relay: stream("rust.relay").into(),
        end: stream("rust.end").into(),
        batch: Some(stream("rust.batch").batch(BATCH, BATCH_WAIT).into()),
        answer: None,
    };
    let peer = faststream(&world, "jetstream");
    world.start("python", peer, nats.publish_to_streams(), from).await
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn core_a_message_goes_there_and_back_in_one_trace() {
    let mut services = core().await;
    cases::there_and_back(&mut services).await;
    services.made("nats-core-messages.txt").await;
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn core_each_message_of_a_batch_stays_in_its_trace() {
    let mut services = core().await;
    cases::our_batch(&mut services, "publish").await;
    cases::our_messages(&mut services).await;

    services.made("nats-core-batch.txt").await;
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn core_baggage_is_equal_on_both_ends() {
    baggage::is_equal_on_both_ends(core().await, Reads::All).await;
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn jetstream_a_message_goes_there_and_back_in_one_trace() {
    let mut services = jetstream().await;
    cases::there_and_back(&mut services).await;
    services.made("nats-jetstream-messages.txt").await;
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn jetstream_each_message_of_a_batch_stays_in_its_trace() {
    let mut services = jetstream().await;
    cases::our_batch(&mut services, "publish").await;
    cases::our_messages(&mut services).await;
    cases::their_batch(&mut services).await;
    cases::their_batch_with_ids(&mut services).await;
    services.made("nats-jetstream-batch.txt").await;
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn jetstream_baggage_is_equal_on_both_ends() {
    baggage::is_equal_on_both_ends(jetstream().await, Reads::All).await;
}

#[tokio::test]
#[ignore = "needs NATS, Python and a Collector: cargo xtask interop"]
async fn core_a_request_is_answered_in_its_trace() {
    let mut services = core().await;
    cases::requests(&mut services).await;
    services.made("nats-requests.txt").await;
}

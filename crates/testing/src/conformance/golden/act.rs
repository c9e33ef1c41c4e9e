//! Lets happen what a row says.

use throughline_core::telemetry::Instrumentation;
use throughline_core::{Delivery, Envelope, Settlement};

use super::compare::Matched;
use super::row::{Act, Does, ONE, Process, Row};
use super::terms::Ref;
use super::world::World;
use crate::conformance::bench::{Bench, ask, delivered};
use crate::conformance::{Door, Harness, Job, Message, Work};

/// Does it, and returns the messages that left.
pub(super) async fn act<H: Harness, D: Door<H>>(
    bench: &Bench<H>,
    world: &mut World,
    row: &Row,
    engine: Instrumentation,
) -> Vec<Delivery> {
    let door = D::open(&bench.harness, engine).await;
    match row.act {
        Act::Through => through(bench, world, &door).await,
        Act::Send { supplied, batch } => return send(bench, world, &door, supplied, batch).await,
        Act::Refused => refused(world, &door).await,
        Act::PartlyRefused => partly_refused(world, &door).await,
        Act::Request => request(bench, world, &door).await,
        Act::NoResponders => {
            assert!(door.request(Message::new(world.orders.clone(), "anyone?")).await.is_err(), "somebody answered");
        }
        Act::Process(process) => return process_given(bench, world, &door, process).await,
        Act::Answer => answer(bench, world, &door).await,
        Act::Pull { messages, batch, wildcard } => {
            let mut job = Job::new(Work::Succeed, messages);
            (job.pull, job.batch) = (true, batch);
            let intake = door.take(&bench.harness, &world.spec, job).await;
            let target = if wildcard { world.wildcard.name.clone() } else { world.orders.clone() };
            give(bench, world, &target, &Process { contexts: [true; 8].get(..messages).unwrap_or(&[]), ..ONE }).await;
            intake.finish().await;
        }
        Act::PullFails => {
            let mut job = Job::new(Work::Succeed, 0);
            (job.pull, job.fault) = (true, true);
            door.take(&bench.harness, &world.spec, job).await.finish().await;
        }
    }
    Vec::new()
}

async fn through<H: Harness, D: Door<H>>(bench: &Bench<H>, world: &World, door: &D) {
    let intake = door.take(&bench.harness, &world.spec, Job::new(Work::Succeed, 1)).await;
    expect_ok(door.send(Message::new(world.orders.clone(), "{}")).await);
    intake.finish().await;
}

async fn send<H: Harness, D: Door<H>>(
    bench: &Bench<H>,
    world: &World,
    door: &D,
    supplied: &[bool],
    batch: bool,
) -> Vec<Delivery> {
    let mut reader = bench.read("orders").await;
    let messages = supplied.iter().enumerate().map(|(index, supplied)| {
        let mut message = Message::new(world.orders.clone(), format!("{}", index + 1));
        message.supplied = supplied.then(|| World::given(index + 1));
        message
    });
    let mut messages: Vec<Message> = messages.collect();
    match messages.pop() {
        Some(only) if !batch => expect_ok(door.send(only).await),
        Some(last) => {
            messages.push(last);
            expect_ok(door.send_batch(messages).await);
        }
        None => {}
    }
    let mut received = Vec::new();
    for _ in supplied {
        received.push(reader.next().await);
    }
    reader.close().await;
    received
}

async fn refused<H: Harness, D: Door<H>>(world: &World, door: &D) {
    let Some(refusal) = &world.refusal else { return };
    let destination = refusal.destination.clone().unwrap_or_else(|| world.orders.clone());
    let result = door.send(Message::new(destination, vec![b'x'; refusal.body])).await;
    assert!(result.is_err(), "the broker took what it should refuse");
}

async fn partly_refused<H: Harness, D: Door<H>>(world: &World, door: &D) {
    let Some(refusal) = &world.refusal else { return };
    let message = |body: Vec<u8>| Message::new(world.orders.clone(), body);
    let result = door.send_batch(vec![message(vec![b'1']), message(vec![b'x'; refusal.body])]).await;
    assert!(result.is_err(), "the broker took what it should refuse");
}

async fn request<H: Harness, D: Door<H>>(bench: &Bench<H>, world: &World, door: &D) {
    let mut reader = bench.read("orders").await;
    let publisher = bench.plain_publisher().await;
    let answering = async {
        let asked = reader.next().await;
        if let Some(inbox) = asked.reply_to() {
            let mut reply = publisher.publish(inbox.clone(), "a reply");
            if let Some(id) = asked.correlation_id() {
                reply = reply.correlation_id(id);
            }
            delivered(reply.await);
        }
    };
    let (reply, ()) = tokio::join!(door.request(Message::new(world.orders.clone(), "a question")), answering);
    assert_eq!(expect_ok(reply).as_ref(), b"a reply");
    reader.close().await;
}

async fn process_given<H: Harness, D: Door<H>>(
    bench: &Bench<H>,
    world: &mut World,
    door: &D,
    process: Process,
) -> Vec<Delivery> {
    let buries = process.work == Does::Bury;
    let mut leaving = match process.work {
        Does::Bury | Does::Publish => Some(bench.read("dead").await),
        _ => None,
    };
    let mut job = Job::new(work(process.work, world), process.contexts.len());
    (job.batch, job.fault) = (process.batch, process.fault);
    job.mode = process.mode;
    job.ambient = world.ambient.clone();
    if process.batch {
        let policy =
            throughline_core::broker::BatchPolicy::new(process.contexts.len(), std::time::Duration::from_secs(10));
        world.spec = world.spec.clone().with_batch(policy);
    }
    let intake = door.take(&bench.harness, &world.spec, job).await;
    let target = if process.wildcard { world.wildcard.name.clone() } else { world.orders.clone() };
    give(bench, world, &target, &process).await;
    intake.finish().await;
    let Some(reader) = &mut leaving else { return Vec::new() };
    let left = reader.next().await;
    assert!(!buries || left.payload().as_ref() == b"1", "the forwarded message has another body");
    vec![left]
}

fn work(does: Does, world: &World) -> Work {
    match does {
        Does::Ack => Work::Settle(Settlement::Ack),
        Does::Bury => Work::Bury { to: world.dead.clone() },
        Does::Fail => Work::Fail,
        Does::FailTwice => Work::FailTwice,
        Does::Abandon | Does::Hang => Work::Hang,
        Does::Panic => Work::Panic,
        Does::Publish => Work::Publish { to: world.dead.clone() },
        Does::Reject => Work::Settle(Settlement::reject("out of stock")),
        Does::Retry => Work::Settle(Settlement::retry_after(std::time::Duration::from_millis(1))),
        Does::Succeed => Work::Succeed,
    }
}

async fn answer<H: Harness, D: Door<H>>(bench: &Bench<H>, world: &World, door: &D) {
    use throughline_core::broker::Broker;
    let intake = door.take(&bench.harness, &world.spec, Job::new(Work::Reply, 1)).await;
    let broker = bench.connect().await;
    let parent = World::traceparent(&World::given(1));
    let question = Envelope::new(&world.orders, "a question").with_header("traceparent", parent);
    let transport = broker.transport();
    let (reply, ()) = tokio::join!(ask(transport.as_ref(), question), intake.finish());
    assert_eq!(reply.payload().as_ref(), b"a reply");
}

/// Publishes messages of the suite without telemetry, with P# in their headers where they are to carry one.
async fn give<H: Harness>(bench: &Bench<H>, world: &World, target: &str, process: &Process) {
    let publisher = bench.plain_publisher().await;
    for (index, has_context) in process.contexts.iter().enumerate() {
        let target = if process.spread { format!("{target}{index}") } else { target.to_owned() };
        let mut envelope = Envelope::new(target, format!("{}", index + 1)).with_header("tenant", "acme");
        if *has_context {
            envelope = envelope.with_header("traceparent", World::traceparent(&World::given(index + 1)));
        }
        if process.ids {
            envelope = envelope.with_id(world.message_id(index + 1)).with_correlation_id(world.conversation());
        }
        delivered(publisher.publish_envelope(envelope).await);
    }
}

#[track_caller]
fn expect_ok<T>(result: Result<T, String>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the door failed: {error}"),
    }
}

/// Compares the creation contexts in the messages that left with those of the row, byte for byte.
pub(super) fn carried(row: &Row, world: &World, matched: &Matched<'_>, received: &[Delivery]) -> Vec<String> {
    let mut problems = Vec::new();
    if row.carried.len() != received.len() {
        problems.push(format!("{} messages left, not {}", received.len(), row.carried.len()));
    }
    for (number, (expected, delivery)) in row.carried.iter().zip(received).enumerate() {
        let expected = match expected {
            Ref::None => None,
            reference => matched.context(*reference, world).map(|context| World::traceparent(&context)),
        };
        let found: Vec<_> = delivery.headers().get_all("traceparent").map(String::from_utf8_lossy).collect();
        if found.iter().map(AsRef::as_ref).collect::<Vec<&str>>()
            != expected.iter().map(String::as_str).collect::<Vec<_>>()
        {
            problems.push(format!("message {} carries {found:?}, not {expected:?}", number + 1));
        }
        if matches!(row.act, Act::Process(process) if process.work == Does::Bury) {
            let kept = delivery.headers().get("tenant") == Some("acme") && !delivery.headers().contains("tracestate");
            problems.extend((!kept).then(|| "the forwarded message lost or gained a header".to_owned()));
        }
    }
    problems
}

//! Streams and consumers in trouble: full, sealed, gone, limited, fed by others. The handler is not run again for what is none of its
//! faults, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, Source, SubjectTransform};
use bytes::Bytes;
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, Handler, ServeErrorKind, Settlement, serve};
use throughline_nats::Stream;
use throughline_testing::Capture;
use tokio::time::{sleep, timeout};

use crate::server::PATIENCE;
use crate::streams::{connect, consumer, create, durable, of, stored, stream};
use crate::witness::{Handled, Log, counted, unique, wait_until, wait_until_async};
use tracing::Level;

const SETTLED: &str = "throughline.settled.messages";
const HOW: &str = "throughline.settlement";

/// An app that rejects every message for good, into a dead letter.
struct Rejecting {
    runs: Arc<AtomicUsize>,
    capture: Capture,
    running: Running,
}

impl Rejecting {
    async fn start(id: &str, dead_letter: &str) -> Self {
        let (runs, capture) = (Arc::new(AtomicUsize::new(0)), Capture::new());
        let counter = Arc::clone(&runs);
        let handle = move |_: Delivery| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Settlement::reject("not ours"))
        };
        let route = Handler::<(Delivery,), ()>::dead_letter(handle, dead_letter.to_owned());
        let app = App::new().telemetry(capture.instrumentation().build()).subscribe(durable(id), route);
        let running = serve(connect().await, app).start().await.expect("the app starts");
        Self { runs, capture, running }
    }

    /// How often the handler ran.
    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Waits until the message has come to this end.
    async fn settles(&self, how: &str) {
        wait_until("the message is settled", || counted(&self.capture, SETTLED, &[(HOW, how)]) == 1).await;
    }

    /// Stops the app and returns how often the handler ran.
    async fn stop(self) -> usize {
        self.running.shutdown().await.expect("the app stops");
        self.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_dead_letter_waits_for_room_and_the_handler_does_not_run_again() {
    let (log, _guard) = Log::capture();
    let (nats, id) = stream().await;
    let place = format!("{id}-dead");
    let full = Config { max_messages: 1, discard: DiscardPolicy::New, ..of(&place, &place) };
    create(&nats, full).await;
    nats.publisher().publish(place.as_str().to_owned(), "in the way").await.expect("it is stored");

    let app = Rejecting::start(&id, &place).await;
    nats.publisher().without_telemetry().publish(format!("{id}.orders"), "x").id("m1").await.expect("it is stored");
    wait_until("it was tried", || log.has(Level::WARN, "a dead letter was not published and is tried again")).await;
    assert_eq!(app.runs(), 1);
    nats.jetstream().get_stream(&place).await.expect("the stream").purge().await.expect("it is purged");
    app.settles("dead_letter").await;
    assert_eq!(app.stop().await, 1, "what failed is repeated, not the handler");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_dead_letter_that_a_sealed_stream_takes_no_more_is_a_rejection() {
    let (nats, id) = stream().await;
    let place = format!("{id}-dead");
    create(&nats, of(&place, &place)).await;
    let sealed = Config { sealed: true, ..of(&place, &place) };
    nats.jetstream().update_stream(sealed).await.expect("it is sealed");
    let app = Rejecting::start(&id, &place).await;
    nats.publisher().without_telemetry().publish(format!("{id}.orders"), "x").await.expect("it is stored");
    app.settles("reject").await;
    assert_eq!((app.stop().await, stored(&nats, &id, "orders").await), (1, 1), "it lies where it was");
}

/// Its own headers stand beside a body that fills a message of the server.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_message_that_is_too_large_to_be_a_dead_letter_is_a_rejection() {
    let (nats, id) = stream().await;
    let app = Rejecting::start(&id, &format!("{id}.dead")).await;
    let most = nats.client().max_payload();
    let body = Bytes::from(vec![b'x'; most]);
    nats.publisher().without_telemetry().publish(format!("{id}.orders"), body).await.expect("it is stored");
    app.settles("reject").await;
    assert_eq!((app.stop().await, stored(&nats, &id, "dead").await), (1, 0));
}

/// From a stream of work the message goes only when its dead letter is stored.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_work_queue_loses_its_message_to_the_dead_letter_alone() {
    let (nats, id) = (connect().await, unique());
    create(&nats, Config { retention: RetentionPolicy::WorkQueue, ..of(&id, &format!("{id}.>")) }).await;
    let place = format!("{id}-dead");
    create(&nats, of(&place, &place)).await;
    let app = Rejecting::start(&id, &place).await;
    nats.jetstream().delete_stream(&place).await.expect("it is gone after the start");
    nats.publisher().without_telemetry().publish(format!("{id}.orders"), "x").await.expect("it is stored");
    wait_until("the handler ran", || app.runs() == 1).await;
    assert_eq!(stored(&nats, &id, "orders").await, 1, "there is no place for the dead letter");
    create(&nats, of(&place, &place)).await;
    app.settles("dead_letter").await;
    let runs = app.stop().await;
    wait_until_async("it is off the queue", async || stored(&nats, &id, "orders").await == 0).await;
    assert_eq!(runs, 1);
}

/// A consumer that is deleted ends the service with an error; when it is made anew at once, it goes on with it.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_that_is_deleted_ends_the_service() {
    let (nats, id) = stream().await;
    let handled = Handled::new();
    let running = serve(connect().await, handled.app(durable(&id))).start().await.expect("the app starts");
    nats.publisher().publish(format!("{id}.orders"), "before").await.expect("it is stored");
    handled.all(&["before".to_owned()]).await;
    let native = nats.jetstream().get_stream(&id).await.expect("the stream");
    native.delete_consumer("stock").await.expect("it is deleted");
    let ended = timeout(4 * PATIENCE, running.run_until(std::future::pending())).await.expect("the app ends");
    assert_eq!(ended.expect_err("the end is an error").kind(), ServeErrorKind::Ended);
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_that_is_made_anew_at_once_is_used_on() {
    let (nats, id) = stream().await;
    let handled = Handled::new();
    let running = serve(connect().await, handled.app(durable(&id))).start().await.expect("the app starts");
    nats.publisher().publish(format!("{id}.orders"), "before").await.expect("it is stored");
    handled.all(&["before".to_owned()]).await;
    let native = nats.jetstream().get_stream(&id).await.expect("the stream");
    let config = consumer(&nats, &id).await.config;
    native.delete_consumer("stock").await.expect("it is deleted");
    native.create_consumer(config).await.expect("it is there again");
    nats.publisher().publish(format!("{id}.orders"), "after").await.expect("it is stored");
    handled.all(&["after".to_owned()]).await;
    running.shutdown().await.expect("the app stops");
}

/// What is purged comes no more, and what follows does.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_stream_that_is_purged_under_a_service_goes_on() {
    let (nats, id) = stream().await;
    let (handled, publisher) = (Handled::new(), nats.publisher());
    let running = serve(connect().await, handled.app(durable(&id))).start().await.expect("the app starts");
    let native = nats.jetstream().get_stream(&id).await.expect("the stream");
    for round in 0..3 {
        publisher.publish_batch(format!("{id}.orders"), (0..200).map(|_| "old")).await.expect("they are stored");
        native.purge().await.expect("it is purged");
        let late = format!("after {round}");
        publisher.publish(format!("{id}.orders"), late.clone()).await.expect("it is stored");
        handled.all(&[late]).await;
    }
    wait_until_async("all is settled", async || consumer(&nats, &id).await.num_ack_pending == 0).await;
    running.shutdown().await.expect("the app stops");
}

/// The subjects are those of other streams, or made by the server, which changes subjects from 2.10 on.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_stream_that_is_fed_by_others_is_consumed_like_any_other() {
    let (nats, id) = stream().await;
    let (mirror, gathered, changed) = (format!("{id}-mirror"), format!("{id}-sources"), format!("{id}-changed"));
    let source = Source { name: id.clone(), ..Source::default() };
    let fed = |name: &str| Config { name: name.to_owned(), subjects: Vec::new(), ..of(name, name) };
    create(&nats, Config { mirror: Some(source.clone()), ..fed(&mirror) }).await;
    create(&nats, Config { sources: Some(vec![source]), ..fed(&gathered) }).await;
    let transform = SubjectTransform {
        source: format!("{changed}.*.in"),
        destination: format!("{changed}.out.{{{{wildcard(1)}}}}"),
    };
    let changes_subjects = nats.client().is_server_compatible(2, 10, 0);
    let transformed = Config { subject_transform: Some(transform), ..of(&changed, &format!("{changed}.*.in")) };
    // An older server keeps the subject.
    create(&nats, if changes_subjects { transformed } else { of(&changed, &format!("{changed}.out.*")) }).await;

    let (handled, capture) = (Handled::new(), Capture::new());
    let app = App::new().telemetry(capture.instrumentation().build());
    let orders = format!("{id}.orders");
    let app = handled.on(app, Stream::new(mirror.as_str()).durable("stock").filter(orders.as_str()));
    let app = handled.on(app, Stream::new(gathered.as_str()).durable("gathered").filter(orders.as_str()));
    let app = handled.on(app, Stream::new(changed.as_str()).durable("changed").filter(format!("{changed}.out.*")));
    let running = serve(connect().await, app).start().await.expect("the app starts");
    let publisher = nats.publisher().without_telemetry();
    publisher.publish(orders.clone(), "copied").await.expect("it is stored");
    let subject = if changes_subjects { format!("{changed}.7.in") } else { format!("{changed}.out.7") };
    publisher.publish(subject, "changed").await.expect("it is stored");
    wait_until("the mirror, the gathered and the changed one", || handled.count() == 3).await;
    wait_until("all are settled", || counted(&capture, SETTLED, &[(HOW, "ack")]) == 3).await;
    running.shutdown().await.expect("the app stops");
    let names: Vec<_> = capture.spans().iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names.iter().filter(|name| **name == format!("process {orders}")).count(), 2, "{names:?}");
    assert_eq!(
        names.iter().filter(|name| **name == format!("process {changed}.out.*")).count(),
        1,
        "SPAN-20: {names:?}"
    );
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_thousand_headers_and_empty_ones_reach_the_handler_and_the_dead_letter() {
    let (nats, id) = stream().await;
    let mut headers = async_nats::HeaderMap::new();
    for number in 0..1000 {
        headers.insert(format!("x-{number}"), if number % 2 == 0 { "" } else { "value" });
    }
    let handle = |delivery: Delivery| async move {
        let own = delivery.headers().iter().filter(|(name, _)| name.starts_with("x-")).count();
        Settlement::reject(format!("{own} headers"))
    };
    let route = Handler::<(Delivery,), ()>::dead_letter(handle, format!("{id}.dead"));
    let app = App::new().without_telemetry().subscribe(durable(&id), route);
    let running = serve(connect().await, app).start().await.expect("the app starts");
    let context = nats.jetstream();
    let sent = context.publish_with_headers(format!("{id}.orders"), headers, "x".into()).await.expect("it is sent");
    sent.await.expect("it is stored");
    wait_until_async("the dead letter is stored", async || stored(&nats, &id, "dead").await == 1).await;
    running.shutdown().await.expect("the app stops");
    let native = nats.jetstream().get_stream(&id).await.expect("the stream");
    let dead = native.get_last_raw_message_by_subject(&format!("{id}.dead")).await.expect("the dead letter");
    assert_eq!(dead.headers.get("dead-letter-reason").map(|reason| reason.as_str()), Some("1000 headers"));
    assert_eq!(dead.headers.iter().filter(|(name, _)| AsRef::<str>::as_ref(*name).starts_with("x-")).count(), 1000);
}

/// Two services, one name, two minds about what it is.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_second_service_with_another_filter_for_the_same_consumer_is_refused() {
    let (nats, id) = stream().await;
    let running = serve(connect().await, Handled::new().app(durable(&id))).start().await.expect("the app starts");
    let other = Stream::new(id.as_str()).durable("stock").filter(format!("{id}.bills"));
    let failed = serve(nats, Handled::new().app(other)).start().await.map(drop).expect_err("it contradicts");
    assert!(failed.to_string().contains("stock") || format!("{failed:?}").contains("filter"), "{failed:?}");
    assert_eq!(consumer(&connect().await, &id).await.config.filter_subject, format!("{id}.orders"), "it is as it was");
    running.shutdown().await.expect("the app stops");
}

/// A paused consumer delivers nothing, and is neither gone nor lost. Servers before 2.11 cannot pause one.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_that_is_paused_for_a_while_goes_on_afterwards() {
    let (nats, id) = stream().await;
    let handled = Handled::new();
    let running = serve(connect().await, handled.app(durable(&id))).start().await.expect("the app starts");
    let client = nats.client();
    let pause = async |until: &'static str| {
        let asked = client.request(format!("$JS.API.CONSUMER.PAUSE.{id}.stock"), until.into());
        String::from_utf8_lossy(&timeout(PATIENCE, asked).await.expect("in time").expect("an answer").payload)
            .into_owned()
    };
    if !client.is_server_compatible(2, 11, 0) {
        let asked = client.request(format!("$JS.API.CONSUMER.PAUSE.{id}.stock"), "{}".into()).await;
        assert!(asked.is_err(), "{asked:?}");
        return running.shutdown().await.expect("the app stops");
    }
    assert!(pause("{\"pause_until\":\"2200-01-01T00:00:00Z\"}").await.contains("\"paused\":true"));
    nats.publisher().publish(format!("{id}.orders"), "after").await.expect("it is stored");
    // Longer than a request of a service stays without a word.
    sleep(Duration::from_secs(12)).await;
    assert_eq!((handled.count(), consumer(&nats, &id).await.num_pending), (0, 1));
    assert!(pause("{}").await.contains("\"paused\":false"));
    handled.all(&["after".to_owned()]).await;
    running.shutdown().await.expect("the app stops");
}

//! What a publisher hears of each of its messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::AMQPValue;
use throughline_core::broker::{Broker, Publish, PublishErrorKind};
use throughline_core::{App, Envelope, PublishError, serve};
use throughline_rabbit::{Properties, PublishFailure, Queue, Rabbit, RabbitOptions, ToExchange};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::load::until;
use crate::log::Log;
use crate::proxy::Proxy;
use crate::server::{self, Plain, host_and_port, unique};

/// A queue of the test's own, another one that takes no second message, and what publishes.
struct Given {
    plain: Plain,
    queue: String,
    full: String,
    transport: Arc<dyn Publish>,
}

impl Given {
    async fn new() -> Self {
        let plain = Plain::connect(&server::url()).await;
        let (queue, full) = (unique("publish"), unique("full"));
        plain.declare(&queue, &[]).await;
        let limit = [
            ("x-max-length", AMQPValue::LongLongInt(1)),
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ];
        plain.declare(&full, &limit).await;
        Self { plain, queue, full, transport: server::connect().await.transport() }
    }

    async fn refused(&self, envelope: Envelope) -> PublishError {
        self.transport.publish(envelope).await.expect_err("an error")
    }

    async fn stop(self) {
        self.plain.delete(&self.queue).await;
        self.plain.delete(&self.full).await;
    }
}

/// As many as are under way, each return is that of its own message.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn every_second_message_comes_back_and_just_those_calls_fail() {
    let given = Given::new().await;
    let missing = unique("missing");
    let places = [given.queue.clone(), missing].into_iter().cycle().take(4_000);
    let messages = places.map(|place| Envelope::new(place, "the same").with_id("the same")).collect();
    let results = given.transport.publish_batch(messages).await;
    for (index, result) in results.iter().enumerate() {
        match result {
            Ok(_) => assert_eq!(index % 2, 0, "message {index} has no queue"),
            Err(failed) => {
                assert_eq!((index % 2, failed.error_type()), (1, "no-route"), "{failed}");
                assert_eq!(failed.kind(), PublishErrorKind::NotFound);
            }
        }
    }
    assert_eq!(given.plain.count(&given.queue).await.0, 2_000);
    given.stop().await;
}

/// Tasks that share a publisher get the confirmations of their own messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn eight_tasks_hear_of_their_own_refused_messages() {
    let given = Given::new().await;
    given.transport.publish(Envelope::new(given.full.clone(), "fills it")).await.expect("room for one");
    let task = |transport: Arc<dyn Publish>, queue: String, full: String| async move {
        for _ in 0..6 {
            let places = [&full, &queue, &queue].into_iter().cycle().take(500);
            let messages = places.map(|place| Envelope::new(place.clone(), "the same")).collect();
            for (index, result) in transport.publish_batch(messages).await.into_iter().enumerate() {
                let error_type = result.err().map(|failed| failed.error_type().to_owned());
                assert_eq!(error_type.as_deref(), (index % 3 == 0).then_some("nack"), "message {index}");
            }
        }
    };
    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(task(Arc::clone(&given.transport), given.queue.clone(), given.full.clone())))
        .collect();
    for task in tasks {
        task.await.expect("each answer is that of its message");
    }
    assert_eq!(given.plain.count(&given.queue).await.0, 8 * 6 * 333);
    given.stop().await;
}

/// Others of the same publisher go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_missing_exchange_fails_alone() {
    let given = Given::new().await;
    let (transport, queue) = (Arc::clone(&given.transport), given.queue.clone());
    let innocent = tokio::spawn(async move {
        let messages = (0..1_500).map(|_| Envelope::new(queue.clone(), vec![1; 30_000])).collect();
        transport.publish_batch(messages).await.iter().filter(|result| result.is_err()).count()
    });
    for number in 0..50 {
        let nowhere = ToExchange::new(unique("nowhere")).key(number.to_string());
        let failed = given.refused(Envelope::new(nowhere, vec![1; 30_000])).await;
        assert_eq!(
            (failed.error_type(), PublishFailure::of(&failed)),
            ("not-found", Some(PublishFailure::Refused)),
            "ATTR-R-14"
        );
    }
    assert_eq!(innocent.await.expect("no panic"), 0, "innocent messages failed");
    assert_eq!(given.plain.count(&given.queue).await.0, 1_500);
    given.stop().await;
}

/// ATTR-R-14: what the server would answer by closing something is an error of this message, which says what to do.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn what_cannot_be_taken_is_an_error_of_its_own_message() {
    let given = Given::new().await;
    let queue = || given.queue.clone();
    let cases = [
        (Envelope::new("q".repeat(256), "x"), PublishErrorKind::InvalidDestination, "name_too_long"),
        (Envelope::new(queue(), "x").with_id("i".repeat(256)), PublishErrorKind::Encode, "name_too_long"),
        (
            Envelope::new(queue(), "x").with_header("large", vec![b'x'; 200_000]),
            PublishErrorKind::TooLarge,
            "too_large",
        ),
        (Envelope::new(queue(), vec![0; 17 << 20]), PublishErrorKind::TooLarge, "precondition-failed"),
        (
            Envelope::new(queue(), "x").with_native(Properties::new().with_user_id("somebody")),
            PublishErrorKind::Refused,
            "precondition-failed",
        ),
    ];
    for (envelope, kind, error_type) in cases {
        let failed = given.refused(envelope).await;
        assert_eq!((failed.kind(), failed.error_type()), (kind, error_type), "{failed}");
        given.transport.publish(Envelope::new(queue(), "after it")).await.expect("the next message passes");
    }
    given.stop().await;
}

/// An unroutable request fails at once, one that nobody answers in time, and many wait at the same time.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn requests_fail_at_once_or_in_time() {
    let given = Given::new().await;
    let began = Instant::now();
    let nobody = given.transport.request(Envelope::new(unique("nobody"), "?"), Duration::from_secs(30)).await;
    assert_eq!(nobody.err().map(|failed| failed.error_type().to_owned()).as_deref(), Some("no-route"));
    assert!(began.elapsed() < Duration::from_secs(15), "it waited");
    let silent = given.transport.request(Envelope::new(given.queue.clone(), "?"), Duration::from_millis(300)).await;
    assert!(silent.expect_err("no answer").is_timeout());
    given.stop().await;
}

/// The first messages of a connection wait for a channel, and for the proof that the exchange is there: in the order of the call, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn the_first_batch_of_a_connection_is_stored_in_its_order() {
    const MESSAGES: usize = 1_500;
    let plain = Plain::connect(&server::url()).await;
    for _ in 0..5 {
        let (rabbit, queue) = (server::connect().await, unique("order"));
        plain.declare(&queue, &[]).await;
        let messages = (0..MESSAGES).map(|number| Envelope::new(queue.clone(), number.to_string())).collect();
        assert!(rabbit.transport().publish_batch(messages).await.iter().all(Result::is_ok), "all are stored");
        for number in 0..MESSAGES {
            let got = plain.channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await;
            let message = got.expect("an answer").expect("a message");
            assert_eq!(String::from_utf8_lossy(&message.data), number.to_string());
        }
        plain.delete(&queue).await;
    }
}

/// Those that the server answers by closing their channel fail alone: others that wait for their replies get them.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_request_that_is_refused_takes_no_other_one_with_it() {
    const REQUESTS: usize = 20;
    let given = Given::new().await;
    let (queue, wait) = (unique("answers"), Duration::from_secs(20));
    let (begun, opened) = (Arc::new(watch::Sender::new(0)), watch::Sender::new(false));
    let answer = {
        let (begun, opened) = (Arc::clone(&begun), opened.clone());
        move |body: String| {
            let (begun, mut opened) = (Arc::clone(&begun), opened.subscribe());
            async move {
                begun.send_modify(|begun| *begun += 1);
                opened.wait_for(|opened| *opened).await.expect("the test runs");
                format!("re: {body}")
            }
        }
    };
    let app = App::new().subscribe(Queue::new(queue.as_str()).expires(server::KEPT), answer).without_telemetry();
    let running = serve(server::connect().await, app).start().await.expect("a service");
    let request = |number: usize| {
        let (transport, queue) = (Arc::clone(&given.transport), queue.clone());
        tokio::spawn(async move { transport.request(Envelope::new(queue, number.to_string()), wait).await })
    };
    let asked: Vec<_> = (0..REQUESTS).map(request).collect();
    begun.subscribe().wait_for(|begun| *begun == REQUESTS).await.expect("all are being answered");
    let refused = [
        (
            Envelope::new(queue.clone(), "?").with_native(Properties::new().with_user_id("somebody")),
            PublishErrorKind::Refused,
            "precondition-failed",
        ),
        (Envelope::new(queue.clone(), vec![0; 17 << 20]), PublishErrorKind::TooLarge, "precondition-failed"),
        (Envelope::new(ToExchange::new(unique("nowhere")), "?"), PublishErrorKind::NotFound, "not-found"),
    ];
    for (envelope, kind, error_type) in refused {
        let failed = given.transport.request(envelope, wait).await.expect_err("the server refuses it");
        assert_eq!((failed.kind(), failed.error_type()), (kind, error_type), "{failed}");
    }
    // One of them that it takes.
    let own = Envelope::new(queue.clone(), "own").with_native(Properties::new().with_user_id("guest"));
    opened.send_replace(true);
    let reply = given.transport.request(own, wait).await.expect("a reply");
    assert_eq!(reply.payload().as_ref(), b"re: own");
    for (number, asked) in asked.into_iter().enumerate() {
        let reply = asked.await.expect("no panic").unwrap_or_else(|failed| panic!("request {number}: {failed}"));
        assert_eq!(reply.payload().as_ref(), format!("re: {number}").as_bytes());
    }
    running.shutdown().await.expect("the service stops");
    given.plain.delete(&queue).await;
    given.stop().await;
}

/// It is dropped with a line that says where the request went, and nothing of what is in it.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_reply_that_comes_too_late_is_told() {
    let (log, _guard) = Log::capture();
    let given = Given::new().await;
    // The first one has a channel of its own, which ends with it.
    for _ in 0..2 {
        let (transport, asked) = (Arc::clone(&given.transport), Envelope::new(given.queue.clone(), "?"));
        let asking = tokio::spawn(async move { transport.request(asked, Duration::from_secs(1)).await });
        let request = loop {
            let get = given.plain.channel.basic_get(given.queue.as_str().into(), BasicGetOptions { no_ack: true });
            if let Some(request) = get.await.expect("an answer") {
                break request.delivery.properties;
            }
        };
        assert!(asking.await.expect("no panic").expect_err("nobody answers").is_timeout());
        let (to, id) = (request.reply_to().clone(), request.correlation_id().clone());
        let properties = BasicProperties::default().with_correlation_id(id.expect("an id"));
        let (options, to) = (BasicPublishOptions::default(), to.expect("an address"));
        let answer = given.plain.channel.basic_publish("".into(), to, options, b"a secret", properties);
        answer.await.expect("published").await.expect("published");
    }
    until("the log says so", || !log.with(&["nobody waited for it"]).is_empty()).await;
    let lines = log.with(&["nobody waited for it"]);
    assert!(lines.len() == 1 && lines[0].contains(&given.queue) && !lines[0].contains("secret"), "{lines:?}");
    given.stop().await;
}

/// Callers that go, or give up, keep their room until the server has answered, and no longer; each answer is that of its own message.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_publish_that_nobody_waits_for_leaves_no_trace() {
    const ROOM: usize = 4;
    let given = Given::new().await;
    let proxy = Proxy::start(host_and_port(&server::url()).1).await;
    let options = RabbitOptions::new()
        .max_unconfirmed(ROOM)
        .confirm_timeout(Duration::from_millis(300))
        .publish_wait(Duration::from_millis(300));
    let rabbit = Rabbit::connect_with(proxy.url(), options).await.expect("a connection");
    let (transport, queue) = (rabbit.transport(), || Envelope::new(given.queue.clone(), "the same"));
    for round in 1..=3 {
        // The first one proves the exchange, the second one opens the channel.
        for _ in 0..2 {
            transport.publish(queue()).await.expect("published");
        }
        proxy.hold(true);
        for _ in 0..ROOM / 2 {
            let publishing = transport.publish(queue());
            assert!(timeout(Duration::from_millis(50), publishing).await.is_err(), "it waits for its confirmation");
        }
        // No queue takes these: the return comes when nobody waits.
        let lost = (0..ROOM / 2).map(|_| transport.publish(Envelope::new(unique("missing"), "the same")));
        for result in join_all(lost).await {
            let failed = result.expect_err("no answer");
            assert_eq!(
                (failed.error_type(), PublishFailure::of(&failed)),
                ("timeout", Some(PublishFailure::MaybeStored)),
                "{failed}"
            );
        }
        let failed = transport.publish(queue()).await.expect_err("no room");
        assert_eq!(
            (failed.kind(), PublishFailure::of(&failed)),
            (PublishErrorKind::Unavailable, Some(PublishFailure::NotSent))
        );
        proxy.hold(false);
        let mut expected = Vec::new();
        let mut messages = Vec::new();
        for number in 0..3 * ROOM {
            let is_lost = number % 3 == 0;
            expected.push(is_lost.then_some("no-route"));
            messages.push(if is_lost { Envelope::new(unique("missing"), "the same") } else { queue() });
        }
        let results = transport.publish_batch(messages).await;
        let failed: Vec<_> = results.iter().map(|result| result.as_ref().err().map(PublishError::error_type)).collect();
        assert_eq!(failed, expected);
        let stored = round * (2 + ROOM / 2 + 2 * ROOM);
        assert_eq!(given.plain.count(&given.queue).await.0 as usize, stored, "the server had all of them");
    }
    given.stop().await;
}

/// One that its caller does not look at any more keeps its room until the server has answered, and no longer.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_publish_that_is_not_polled_keeps_nobody_from_its_room() {
    let given = Given::new().await;
    let options = RabbitOptions::new().max_unconfirmed(1).publish_wait(Duration::from_secs(5));
    let rabbit = Rabbit::connect_with(server::url(), options).await.expect("a connection");
    let (transport, queue) = (rabbit.transport(), || Envelope::new(given.queue.clone(), "x"));
    for _ in 0..2 {
        transport.publish(queue()).await.expect("published");
    }
    let mut first = transport.publish(queue());
    assert!(futures_util::poll!(first.as_mut()).is_pending(), "it waits for its confirmation");
    transport.publish(queue()).await.expect("there is room again");
    first.await.expect("published");
    let second = transport.publish(queue());
    let mut second = std::pin::pin!(second);
    assert!(futures_util::poll!(second.as_mut()).is_pending(), "it waits for its confirmation");
    rabbit.close().await.expect("all is confirmed");
    second.await.expect("published");
    given.stop().await;
}

/// A connection without a channel for it says so at once, and goes on when there is one.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_publish_without_a_channel_says_so() {
    let given = Given::new().await;
    let limited = format!("{}?channel_max=1", server::url());
    let rabbit = Rabbit::connect_with(limited.as_str(), RabbitOptions::new()).await.expect("a connection");
    let (transport, began) = (rabbit.transport(), Instant::now());
    let queue = || Envelope::new(given.queue.clone(), "x");
    transport.publish(queue()).await.expect("the first one goes alone");
    for failed in [
        transport.publish(queue()).await.expect_err("there is no channel"),
        transport.request(queue(), Duration::from_secs(20)).await.expect_err("there is no channel"),
    ] {
        assert_eq!(
            (failed.kind(), failed.error_type(), PublishFailure::of(&failed)),
            (PublishErrorKind::Unavailable, "channel-limit", Some(PublishFailure::NotSent)),
            "{failed}"
        );
        assert!(failed.to_string().contains("`channel_max`"), "{failed}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "it waited");
    given.stop().await;
}

//! What an app refuses before it takes a message.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{
    Broker, BrokerErrorKind, Existence, Outbound, OutboundUse, Publish, Subscriber, Subscription,
};
use throughline_core::extract::Batch;
use throughline_core::{App, BrokerError, Handler, Route, ServeError, ServeErrorKind, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::start;
use tokio::time::Instant;

use crate::support::{Log, Seen};

async fn handle(order: String) -> String {
    order
}

async fn is_refused(memory: &Memory, app: App) -> bool {
    match serve(memory.clone(), app).start().await {
        Ok(running) => {
            running.shutdown().await.unwrap();
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ServeErrorKind::Configuration, "{error:?}");
            true
        }
    }
}

async fn with(channel: &str, route: Route) -> bool {
    is_refused(&Memory::new(), App::new().subscribe(Channel::new(channel).group("stock"), route)).await
}

#[tokio::test]
async fn a_message_without_a_place_to_go_is_refused() {
    assert!(with("orders", handle.reply_to("")).await);
    assert!(with("orders", handle.dead_letter("")).await);
    assert!(!with("orders", handle.dead_letter("dead")).await);
}

#[tokio::test]
async fn an_empty_name_is_refused() {
    for channel in [Channel::new("").group("stock"), Channel::new("orders").group("")] {
        assert!(is_refused(&Memory::new(), App::new().subscribe(channel, handle)).await);
    }
}

#[tokio::test]
async fn a_subscription_that_takes_what_it_sends_is_refused() {
    assert!(with("orders", handle.dead_letter("orders")).await);
    assert!(with("orders", handle.reply_to("orders")).await);
    assert!(!with("orders", handle.reply_to("replies").dead_letter("dead")).await);
}

#[tokio::test]
async fn dead_letters_that_go_round_are_refused_across_the_apps_of_a_connection() {
    let memory = Memory::new();
    let there = App::new().subscribe(Channel::new("orders").group("a"), handle.dead_letter("dead"));
    let back = || App::new().subscribe(Channel::new("dead").group("b"), handle.dead_letter("orders"));
    let running = serve(memory.clone(), there).start().await.unwrap();
    assert!(is_refused(&memory, back()).await);
    running.shutdown().await.unwrap();
    assert!(!is_refused(&memory, back()).await, "the other app has ended");
}

/// A batch may wait for as long as it likes; the clock has no end that would be passed.
#[tokio::test(start_paused = true)]
async fn the_longest_time_is_no_fault() {
    async fn count(batch: Batch<String>) -> String {
        batch.len().to_string()
    }
    let orders = Channel::new("orders").batch(2, Duration::MAX);
    let test = start(App::new().subscribe(orders, count.reply_to("counts"))).await;
    test.publish("orders", "1").await;
    test.publish("orders", "2").await;
    assert_eq!(test.next::<String>("counts").await, "2");

    let memory = Memory::new();
    let app = App::new().subscribe(Channel::new("orders").group("stock"), handle);
    let running = serve(memory, app).shutdown_timeout(Duration::MAX).start().await.unwrap();
    running.shutdown().await.unwrap();
}

/// The in-memory broker, where destinations must exist.
#[derive(Clone)]
struct Strict {
    memory: Memory,
    answer: Answer,
    asked: Seen<(String, String, OutboundUse)>,
}

#[derive(Clone, Copy)]
enum Answer {
    /// All but `dead` exist.
    NoDead,
    /// The broker refuses to say.
    Refusal,
    Silence,
}

impl Strict {
    fn new(answer: Answer) -> Self {
        Self { memory: Memory::new(), answer, asked: Seen::new() }
    }

    fn say(&self, one: &Outbound<'_>) -> Result<Existence, BrokerError> {
        let name = one.destination.name();
        self.asked.push((one.subscription.destination().to_owned(), name.to_owned(), one.used_for));
        match self.answer {
            Answer::NoDead if name == "dead" => {
                let message = format!("`{name}` does not exist: create it with `pigeons add {name}`");
                Err(BrokerError::new(BrokerErrorKind::NotFound, "not_found", message))
            }
            Answer::NoDead | Answer::Silence => Ok(Existence::Usable),
            Answer::Refusal => {
                let error = BrokerError::new(BrokerErrorKind::Unauthorized, "denied", "no right to look");
                Ok(Existence::Unknown(error.with_source(std::io::Error::other("rule 7"))))
            }
        }
    }

    async fn start(&self, app: App) -> Result<(), ServeError> {
        serve(self.clone(), app).start().await?.shutdown().await
    }
}

#[async_trait]
impl Broker for Strict {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        self.memory.subscribe(subscription).await
    }

    async fn check_destinations(&self, outbound: &[Outbound<'_>]) -> Vec<Result<Existence, BrokerError>> {
        if matches!(self.answer, Answer::Silence) {
            pending::<()>().await;
        }
        outbound.iter().map(|one| self.say(one)).collect()
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

fn both() -> App {
    let orders = Channel::new("orders").group("stock");
    let bills = Channel::new("bills").group("stock");
    App::new()
        .subscribe(orders, handle.reply_to("replies").dead_letter("dead"))
        .subscribe(bills, handle.dead_letter("dead.bills"))
}

#[tokio::test]
async fn a_destination_that_is_missing_is_refused_with_how_to_create_it() {
    let strict = Strict::new(Answer::NoDead);
    let error = strict.start(both()).await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Configuration);
    assert_eq!(error.broker_error().map(BrokerError::kind), Some(BrokerErrorKind::NotFound));
    let text = "`dead_letter` of the subscription to `orders` (group `stock`) cannot be published to: `dead` does not exist: \
                create it with `pigeons add dead`";
    assert_eq!((error.to_string(), format!("{error:?}")), (text.to_owned(), text.to_owned()));
    let asked = strict.asked.take();
    let expected = [
        ("orders", "replies", OutboundUse::Reply),
        ("orders", "dead", OutboundUse::DeadLetter),
        ("bills", "dead.bills", OutboundUse::DeadLetter),
    ];
    assert_eq!(asked, expected.map(|(orders, to, used_for)| (orders.to_owned(), to.to_owned(), used_for)));
}

#[tokio::test]
async fn destinations_that_exist_are_no_reason_for_a_word() {
    let (strict, log) = (Strict::new(Answer::NoDead), Log::listen());
    let orders = Channel::new("orders").group("stock");
    strict.start(App::new().subscribe(orders, handle.reply_to("replies").dead_letter("buried"))).await.unwrap();
    assert_eq!(strict.asked.take().len(), 2);
    assert_eq!(log.warnings(), [""; 0]);
}

#[tokio::test]
async fn nobody_is_asked_where_nothing_is_published() {
    let strict = Strict::new(Answer::NoDead);
    strict.start(App::new().subscribe(Channel::new("orders"), async |_: String| {})).await.unwrap();
    assert!(strict.asked.take().is_empty());
}

#[tokio::test]
async fn a_broker_that_does_not_say_is_a_warning() {
    let (strict, log) = (Strict::new(Answer::Refusal), Log::listen());
    let orders = Channel::new("orders").group("stock");
    strict.start(App::new().subscribe(orders, handle.reply_to("replies").dead_letter("dead"))).await.unwrap();
    let [warning] = &log.warnings()[..] else { panic!("one line: {:?}", log.warnings()) };
    for part in
        ["replies (`reply_to` of", "dead (`dead_letter` of `orders` (group `stock`))", "no right to look: rule 7"]
    {
        assert!(warning.contains(part), "{part} in {warning}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_not_waited_for() {
    let (strict, log) = (Strict::new(Answer::Silence), Log::listen());
    let before = Instant::now();
    strict.start(both()).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 10);
    let [warning] = &log.warnings()[..] else { panic!("one line: {:?}", log.warnings()) };
    assert!(warning.contains("replies") && warning.contains("dead.bills"), "{warning}");
}

//! The whole story, as captured spans: the trace of each order, and the batch that is linked from two of them.

use std::error::Error;

use opentelemetry::KeyValue;
use quickstart::handlers::End;
#[cfg(feature = "kafka")]
use quickstart::kafka;
use quickstart::memory;
#[cfg(feature = "nats")]
use quickstart::nats;
#[cfg(feature = "rabbit")]
use quickstart::rabbit;
use quickstart::services::Subscriptions;
use quickstart::story::{Cast, Service, play};
use throughline::broker::Broker;
use throughline::memory::Memory;
use throughline_testing::{Capture, TraceTree};

type Failed = Box<dyn Error + Send + Sync>;

const AT_ONCE: &str = "
    publish orders.placed
    └─ process orders.placed
       ├─ find on the shelves
       └─ publish stock.reserved
          └─ publish invoices.created
             └─ process invoices.created
";

const AT_THE_SECOND_ATTEMPT: &str = "
    publish orders.placed
    └─ process orders.placed
       ├─ find on the shelves
       ├─ retry
       │  └─ find on the shelves
       └─ publish stock.reserved
          └─ publish invoices.created
             └─ process invoices.created
";

const NOT_AT_ALL: &str = "
    publish orders.placed
    ├─ process orders.placed
    │  ├─ find on the shelves
    │  ├─ retry
    │  │  └─ find on the shelves
    │  └─ publish orders.dead ~ linked from publish orders.placed
    └─ process orders.dead
";

#[tokio::test]
async fn every_order_is_one_trace() -> Result<(), Failed> {
    let broker = Memory::new();
    tell_the_story([broker.clone(), broker.clone(), broker], memory::subscriptions(), "publish").await
}

#[cfg(feature = "nats")]
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn every_order_is_one_trace_on_nats() -> Result<(), Failed> {
    let url = std::env::var("THROUGHLINE_NATS_URL")?;
    let control = nats::connect(&url).await?;
    nats::clean_up(&control).await?;
    let connections = [nats::connect(&url).await?, nats::connect(&url).await?, nats::connect(&url).await?];
    let told = tell_the_story(connections, nats::subscriptions(), "publish").await;
    nats::clean_up(&control).await?;
    told
}

#[cfg(feature = "kafka")]
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn every_order_is_one_trace_on_kafka() -> Result<(), Failed> {
    let url = std::env::var("THROUGHLINE_KAFKA_URL")?;
    let run = kafka::Run::prepare(&url).await?;
    let connections = [kafka::connect(&url).await?, kafka::connect(&url).await?, kafka::connect(&url).await?];
    let told = tell_the_story(connections, run.subscriptions(), "send").await;
    run.clean_up().await?;
    told
}

#[cfg(feature = "rabbit")]
#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test --broker rabbit"]
async fn every_order_is_one_trace_on_rabbit() -> Result<(), Failed> {
    let url = std::env::var("THROUGHLINE_RABBIT_URL")?;
    let run = rabbit::Run::prepare(&url).await?;
    let connections = [rabbit::connect(&url).await?, rabbit::connect(&url).await?, rabbit::connect(&url).await?];
    let told = tell_the_story(connections, rabbit::subscriptions(), "publish").await;
    run.clean_up().await?;
    told
}

/// Plays the story on a broker that calls publishing by this verb (SPAN-07).
async fn tell_the_story<B: Broker>(
    [shop, stock, billing]: [B; 3],
    from: Subscriptions,
    verb: &str,
) -> Result<(), Failed> {
    let capture = Capture::new();
    let service = |broker| Service { broker, tracers: capture.tracer_provider(), meters: capture.meter_provider() };
    let cast = Cast { shop: service(shop), stock: service(stock), billing: service(billing) };

    let mut ends = play(cast, from, |_| ()).await?;
    ends.sort_by_key(|end| end.order);
    assert_eq!(
        ends.iter().map(End::to_string).collect::<Vec<_>>(),
        [
            "order 42: invoiced, 22.61 EUR, tenant acme, warehouse north",
            "order 43: invoiced, 90.44 EUR, tenant acme, warehouse south",
            "order 44: in the dead letter, from orders.placed: failed 2 times",
        ]
    );

    let tree = capture.tree();
    for (order, expected) in [("order-42", AT_ONCE), ("order-43", AT_THE_SECOND_ATTEMPT), ("order-44", NOT_AT_ALL)] {
        let first = format!("{verb} orders.placed");
        trace_of(&tree, &capture, &first, order).assert_tree(&expected.replace("publish", verb));
    }

    let batch = tree.find("process stock.reserved");
    let two = KeyValue::new("messaging.batch.message_count", 2);
    assert!(batch.attributes.contains(&two), "{:?}", batch.attributes);
    let linked: Vec<_> = batch.links.iter().map(|link| link.span_context.span_id()).collect();
    let replies: Vec<_> = tree.find_all(&format!("{verb} stock.reserved"));
    assert_eq!(linked, replies.iter().map(|span| span.span_context.span_id()).collect::<Vec<_>>(), "LINK-12");
    Ok(())
}

/// The trace in which a message of that id was published, by the span of that name.
fn trace_of(tree: &TraceTree, capture: &Capture, name: &str, id: &str) -> TraceTree {
    let id = KeyValue::new("messaging.message.id", id.to_owned());
    let published = tree.find_all(name);
    let traces: Vec<_> = published.iter().filter(|span| span.attributes.contains(&id)).collect();
    let [root] = traces.as_slice() else { panic!("not one publish of {id:?} in\n{tree}") };
    let trace = root.span_context.trace_id();
    TraceTree::new(capture.spans().into_iter().filter(|span| span.span_context.trace_id() == trace))
}

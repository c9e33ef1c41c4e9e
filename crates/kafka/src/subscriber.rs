use std::sync::Arc;

use async_trait::async_trait;
use throughline_core::BrokerError;
use throughline_core::broker::{Received, Reception, RetryRoute, Subscriber, Subscription};
use throughline_core::message::{Source, System};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::consumer::ConsumerHandle;
use crate::semconv::SYSTEM;
use crate::subscription::Topic;
use crate::waits_on::WaitsOnAgain;
use crate::{admin, semconv, transaction};

/// Starts a subscription.
pub(crate) async fn subscribe(
    connection: &Connection,
    subscription: &Subscription,
) -> Result<Box<dyn Subscriber>, BrokerError> {
    let Some(topic) = subscription.native::<Topic>() else {
        return Err(subscription.refused_by(SYSTEM, "`Topic`"));
    };
    let mut topic = topic.clone();
    // A router may have put a prefix before the names.
    topic.names = subscription.patterns().iter().map(|pattern| Arc::from(pattern.as_str())).collect();
    admin::declare(connection, &topic).await?;
    if let Some(id) = topic.exactly_once.clone() {
        let system = semconv::transactional(&connection.system);
        let source = Arc::new(source(system, &topic));
        return transaction::subscribe(connection, topic, id, source).await;
    }
    let source = Arc::new(source(Arc::clone(&connection.system), &topic));
    let concurrency = topic.concurrency();
    let retry = topic.retry_route().map(|route| Arc::new(route) as Arc<dyn RetryRoute>);
    let waits_on = retry.as_ref().map(|_| WaitsOnAgain::new(connection));
    let consumer = ConsumerHandle::start(connection, topic).await?;
    Ok(Box::new(KafkaSubscriber { source, concurrency, retry, waits_on, consumer }))
}

fn source(system: Arc<System>, topic: &Topic) -> Source {
    let only = match topic.names.as_slice() {
        [only] if !topic.is_pattern => Some(only),
        _ => None,
    };
    semconv::source(system, only, topic.group.as_ref())
}

/// Receives the messages of one subscription.
struct KafkaSubscriber {
    source: Arc<Source>,
    concurrency: usize,
    retry: Option<Arc<dyn RetryRoute>>,
    /// Where there are retry topics.
    waits_on: Option<WaitsOnAgain>,
    consumer: ConsumerHandle,
}

impl KafkaSubscriber {
    /// Passes on what is for the handler.
    fn sort_out(&mut self, received: Received) -> Option<Received> {
        match &mut self.waits_on {
            None => Some(received),
            Some(waits_on) => waits_on.take(received),
        }
    }
}

#[async_trait]
impl Subscriber for KafkaSubscriber {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        self.retry.clone()
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn prepare(&mut self, reception: Reception) {
        self.consumer.prepare(&reception);
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        loop {
            let received = self.consumer.receive().await?;
            if let Some(received) = self.sort_out(received) {
                return Ok(received);
            }
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        loop {
            match self.consumer.try_receive()? {
                Ok(received) => {
                    if let Some(received) = self.sort_out(received) {
                        return Some(Ok(received));
                    }
                }
                Err(ended) => return Some(Err(ended)),
            }
        }
    }

    async fn close(&mut self, _deadline: Instant) {
        if let Some(waits_on) = &mut self.waits_on {
            waits_on.close();
        }
        self.consumer.close();
    }

    async fn finish(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        self.consumer.finish(deadline).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant as StdInstant};

    use opentelemetry::KeyValue;
    use opentelemetry::metrics::Meter;
    use rdkafka::mocking::MockCluster;
    use throughline_core::broker::{Broker, ConnectionState, Observe};

    use super::*;
    use crate::Kafka;

    /// What an app hears for its health.
    #[derive(Default)]
    struct Heard {
        assigned: Mutex<Option<Vec<String>>>,
        polled: Mutex<Option<Duration>>,
    }

    impl Observe for Heard {
        fn meter(&self) -> Option<Meter> {
            None
        }

        fn settled(&self, _: StdInstant, _: Option<&str>, _: Vec<KeyValue>, _: Option<&BrokerError>) {}

        fn assigned(&self, parts: Vec<String>) {
            *self.assigned.lock().unwrap() = Some(parts);
        }

        fn polled(&self, again_within: Duration) {
            *self.polled.lock().unwrap() = Some(again_within);
        }
    }

    #[tokio::test]
    async fn an_app_hears_what_is_assigned_and_that_the_thread_polls() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 2, 1).unwrap();
        let kafka = Kafka::connect(cluster.bootstrap_servers()).await.unwrap();
        assert_eq!(kafka.connection(), ConnectionState::Connected);
        let topic = Topic::new("orders").group("stock").property("max.poll.interval.ms", "70000");
        let mut subscriber = kafka.subscribe(&topic.into()).await.unwrap();
        let heard = Arc::new(Heard::default());
        subscriber.prepare(Reception::new(Arc::clone(&heard) as Arc<dyn Observe>, 1));
        assert_eq!(
            heard.assigned.lock().unwrap().as_deref(),
            Some(&["orders 0".to_owned(), "orders 1".to_owned()][..])
        );
        let polled = async {
            while heard.polled.lock().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), polled).await.unwrap();
        assert_eq!(*heard.polled.lock().unwrap(), Some(Duration::from_secs(70)));
        subscriber.close(Instant::now()).await;
        subscriber.finish(Instant::now() + Duration::from_secs(10)).await.unwrap();
        assert_eq!(heard.assigned.lock().unwrap().as_deref(), Some(&[][..]), "it has left the group");
    }

    #[test]
    fn batches_are_handled_one_by_one_unless_the_order_is_given_up() {
        let batched = || Topic::new("orders").group("g").batch(10, Duration::from_millis(50));
        assert_eq!(batched().concurrency(), 1);
        assert_eq!(batched().by_key(8).concurrency(), 1);
        assert_eq!(batched().unordered(8).concurrency(), 8);
        assert_eq!(Topic::new("orders").by_key(8).concurrency(), 8);
        assert!(Topic::new("orders").concurrency() > 1_000_000);
    }
}

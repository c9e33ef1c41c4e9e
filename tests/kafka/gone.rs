//! A topic that is deleted under a running service.

use throughline_core::broker::BrokerErrorKind;
use throughline_core::{App, Delivery};
use throughline_kafka::Topic;
use tokio::time::timeout;

use crate::load::{PATIENCE, start};
use crate::server::url;
use crate::topics::{create, delete, unique};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_that_is_deleted_and_stays_away_ends_the_service() {
    for has_group in [true, false] {
        let topic = unique("gone");
        create(&url(), &topic, 2).await;
        let mut subscription = Topic::new(topic.as_str()).property("topic.metadata.refresh.interval.ms", "500");
        if has_group {
            subscription = subscription.group(unique("group"));
        }
        let running = start(&url(), App::new().subscribe(subscription, async |_: Delivery| {})).await;
        delete(&url(), &topic).await;
        let ended = timeout(PATIENCE, running.run_until(std::future::pending())).await.expect("it ends by itself");
        let failed = ended.expect_err("with an error");
        let found = failed.broker_error().expect("it is the broker's error");
        assert_eq!((found.kind(), found.error_type()), (BrokerErrorKind::NotFound, "UNKNOWN_TOPIC_OR_PARTITION"));
        assert!(found.to_string().contains(&topic), "{found}");
    }
}

use std::time::Duration;

use throughline_core::broker::BatchPolicy;
use throughline_core::extract::Batch;
use throughline_core::{App, Delivery, ServeErrorKind};

use super::left_out;
use crate::conformance::Harness;
use crate::conformance::bench::Bench;
use crate::conformance::wait::soon;

pub async fn subscriptions_that_contradict_each_other_are_refused_at_start<H: Harness>() {
    if !H::CAPABILITIES.groups {
        return left_out("groups");
    }
    let bench = Bench::<H>::start().await;
    let group = bench.group("g");
    let app = App::new()
        .subscribe(bench.harness.subscription(&bench.spec("orders").with_group(&group)), async |_: Delivery| {})
        .subscribe(bench.harness.subscription(&bench.spec("orders").with_group(&group)), async |_: Delivery| {});
    refused(&bench, app).await;
    bench.stop().await;
}

pub async fn a_batch_handler_on_a_subscription_of_single_messages_is_refused_at_start<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let app = App::new().subscribe(bench.harness.subscription(&bench.spec("orders")), async |_: Batch<String>| {});
    refused(&bench, app).await;
    bench.stop().await;
}

pub async fn a_handler_of_single_messages_on_a_batched_subscription_is_refused_at_start<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders").with_batch(BatchPolicy::new(10, Duration::from_millis(10)));
    let app = App::new().subscribe(bench.harness.subscription(&spec), async |_: String| {});
    refused(&bench, app).await;
    bench.stop().await;
}

async fn refused<H: Harness>(bench: &Bench<H>, app: App) {
    match soon("the refusal", bench.prepare(app).await.start()).await {
        Ok(_) => panic!("the app was started"),
        Err(error) => assert_eq!(error.kind(), ServeErrorKind::Configuration, "{error}"),
    }
}

use throughline_core::{App, Delivery};

use super::{bodies, collecting, left_out, note, sorted};
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, publish, publish_with_key, stopped};
use crate::conformance::wait::Seen;

const MANY: usize = 60;

pub async fn subscriptions_of_one_group_share_the_messages<H: Harness>() {
    if !H::CAPABILITIES.groups {
        return left_out("groups");
    }
    let bench = Bench::<H>::start().await;
    let spec = bench.spec(H::DIVIDED).with_group(bench.group("g"));
    let seen = Seen::new();
    let mut running = Vec::new();
    for member in 0..2 {
        let handle = handler!([seen] |delivery: Delivery| { seen.add((note(&delivery).0, member)) });
        running.push(bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await);
    }
    let publisher = bench.publisher().await;
    // Which member gets a message is the broker's to say: there are more of them until both have one. The case has a deadline.
    let mut published = 0;
    let has_each = |notes: &[(String, u32)]| [0, 1].iter().all(|member| notes.iter().any(|(_, by)| by == member));
    while published < MANY || !has_each(&seen.all()) {
        publish_with_key(&publisher, &spec.destination, format!("{published:06}")).await;
        published += 1;
        if published.is_multiple_of(MANY) {
            seen.count(published).await;
        }
    }

    seen.count(published).await;

    for app in running {
        stopped(app).await;
    }
    let all = seen.all();
    assert_eq!(
        sorted(&all),
        (0..published).map(|number| format!("{number:06}")).collect::<Vec<_>>(),
        "each exactly once"
    );
    bench.stop().await;
}

pub async fn every_subscription_without_a_group_gets_every_message<H: Harness>() {
    if !H::CAPABILITIES.fan_out {
        return left_out("fan_out");
    }
    let bench = Bench::<H>::start().await;
    let (one, two) = (Seen::new(), Seen::new());
    let mut app = collecting(bench.harness.subscription(&bench.spec("orders")), &one);
    let handle = handler!([two] |delivery: Delivery| { two.add(note(&delivery)) });
    app = app.subscribe(bench.harness.subscription(&bench.spec("orders")), handle);
    let running = bench.serve(app).await;
    let publisher = bench.publisher().await;
    for body in ["a", "b", "c"] {
        publish(&publisher, &bench.name("orders"), body).await;
    }
    assert_eq!(bodies(&one.count(3).await), ["a", "b", "c"]);
    assert_eq!(bodies(&two.count(3).await), ["a", "b", "c"]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn a_pattern_takes_what_matches_and_nothing_else<H: Harness>() {
    if !H::CAPABILITIES.wildcards {
        return left_out("wildcards");
    }
    let bench = Bench::<H>::start().await;
    let wildcard = bench.wildcard("orders");
    let spec = bench.spec_of(wildcard.pattern);
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| { seen.add((delivery.destination().to_owned(), 1)) });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.publisher().await;
    let other = bench.wildcard("bills").name;
    let marker = format!("{}9", wildcard.name);
    for destination in [&wildcard.name, &other, &marker] {
        publish(&publisher, destination, "order").await;
    }
    // No broker promises an order between destinations.
    assert_eq!(sorted(&seen.count(2).await), [wildcard.name.as_str(), marker.as_str()]);
    stopped(running).await;
    bench.stop().await;
}

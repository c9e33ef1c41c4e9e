//! A complete small adapter, and the conformance suite on it. The guide "Writing an adapter" walks through its files.
//!
//! `client` stands for the client of somebody else. Of the other files, `harness`, `raw` and `guide` are tests; the rest is the adapter.

mod broker;
pub mod carrier;
pub mod client;
mod connection;
mod delivery;
mod error;
mod extract;
mod guide;
mod harness;
mod instrument;
mod publisher;
mod raw;
mod semconv;
mod subscriber;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::Broker as _;
use throughline_core::{App, Envelope, serve};
use throughline_testing::conformance::{FrameworkDoor, assert_carrier, rows_left_out};

pub use self::broker::Pigeons;
pub use self::delivery::NativeMessage;
pub use self::extract::Number;
use self::harness::PigeonPost;
pub use self::instrument::Instrumentation;
pub use self::publisher::Stored;
use self::raw::RawDoor;
pub use self::subscription::Subject;

mod behaviour {
    use super::PigeonPost;
    throughline_testing::conformance_behaviour!(PigeonPost);
}

mod framework {
    use super::{FrameworkDoor, PigeonPost};
    throughline_testing::conformance_golden!(PigeonPost, FrameworkDoor<PigeonPost>);
}

mod raw_client {
    use super::{PigeonPost, RawDoor};
    throughline_testing::conformance_golden!(PigeonPost, RawDoor);
}

#[test]
fn the_carriers_keep_the_rules() {
    assert_carrier::<carrier::ClientHeaders>();
}

#[test]
fn what_only_raw_clients_do_is_left_out_of_the_framework() {
    let left_out = rows_left_out::<PigeonPost, FrameworkDoor<PigeonPost>>();
    assert_eq!(left_out, ["GOLD-J-02", "GOLD-X-10", "SPAN-31", "STAT-09", "STAT-14 receive", "STAT-14 settle"]);
}

#[test]
fn what_the_client_has_no_call_for_is_left_out_of_the_raw_door() {
    let left_out = rows_left_out::<PigeonPost, RawDoor>();
    let batches = ["GOLD-K-02", "GOLD-K-03", "GOLD-J-02", "GOLD-X-06", "SPAN-26", "SPAN-30", "METR-13", "SPAN-31"];
    assert_eq!(left_out, [&batches[..], &["STAT-14 receive", "STAT-14 settle"]].concat());
}

/// A handler with an argument of the adapter's own answers a request; the receipt of another publish has the client's answer.
#[tokio::test]
async fn a_service_runs_on_it() {
    async fn number(Number(number): Number) -> String {
        number.to_string()
    }
    let broker = Pigeons::connect(&Arc::default());
    let app = App::new().subscribe(Subject::new("numbers.{shop}").group("desk"), number);
    let running = serve(broker.clone(), app).start().await.unwrap();

    let answer =
        broker.transport().request(Envelope::new("numbers.7", "which?"), Duration::from_secs(5)).await.unwrap();
    let asked: u64 = std::str::from_utf8(answer.payload()).unwrap().parse().unwrap();
    let receipt = broker.publisher().publish("elsewhere", "nobody listens").await.unwrap();
    assert!(receipt.native::<Stored>().unwrap().0 > asked);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_subscription_of_another_broker_is_refused() {
    let other = throughline_memory::Channel::new("orders").into();
    let refused = Pigeons::connect(&Arc::default()).subscribe(&other).await.err().unwrap();
    assert!(refused.to_string().ends_with("subscribe with `Subject`"), "{refused}");
}

use std::collections::BTreeSet;

use throughline_core::{App, Delivery, Handler, Settlement};

use super::HeaderSet;
use super::stranger::{Given, Strangers};
use crate::conformance::bench::{Bench, body_of, stopped};

/// How many messages are under way at a time.
const CHUNK: usize = 200;

/// Rejects every message, and waits for it at the dead letter: one that cannot be forwarded would be tried again for ever.
pub(super) async fn bury<H: Strangers>(sets: &[HeaderSet]) {
    let bench = Bench::<H>::start().await;
    let mut dead = bench.read("dead").await;
    let stranger = bench.harness.stranger().await;
    let spec = bench.spec("in");
    let reject = async |_: Delivery| Settlement::reject("hostile");
    let route = Handler::<(Delivery,), ()>::dead_letter(reject, bench.name("dead"));
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), route)).await;
    for (number, chunk) in sets.chunks(CHUNK).enumerate() {
        let mut sent = BTreeSet::new();
        for (index, set) in chunk.iter().enumerate() {
            let id = format!("{}", number * CHUNK + index);
            let given = stranger.send(&spec.destination, set, id.clone().into()).await;
            if matches!(given, Given::AsItIs | Given::ByHand) {
                sent.insert(id);
            }
        }
        for _ in 0..sent.len() {
            let letter = dead.next().await;
            assert!(sent.remove(&body_of(&letter)), "{} was forwarded twice", body_of(&letter));
            assert_eq!(letter.headers().get_all("dead-letter-reason").collect::<Vec<_>>(), [b"hostile"]);
        }
        assert!(sent.is_empty(), "lost: {sent:?}");
    }
    stopped(running).await;
    dead.close().await;
    drop(stranger);
    bench.stop().await;
}

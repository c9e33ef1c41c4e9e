//! What later steps need, found or installed while the first tests are built and run: much of it is waiting for downloads.

use std::thread::{self, JoinHandle};

use xtask::servers::{BACKENDS, BROKERS, PEERS};

/// Starts to find or install the programs of all brokers, backends and services in other languages, but for servers that the
/// environment names. Why one cannot be had is said by
/// the step that needs it, which tries again.
pub(crate) fn start() -> JoinHandle<()> {
    thread::spawn(|| {
        for broker in BROKERS.iter().filter(|broker| std::env::var_os(broker.url_variable).is_none()) {
            broker.passes.iter().for_each(|pass| drop((pass.program)()));
            broker.others.iter().for_each(|program| drop((program.find)()));
        }
        for backend in BACKENDS.iter().filter(|backend| backend.url().is_none()) {
            backend.programs.iter().for_each(|program| drop((program.find)()));
        }
        PEERS.iter().for_each(|peer| drop((peer.find)()));
    })
}

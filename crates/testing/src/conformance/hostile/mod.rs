//! What strangers may send: 10,000 sets of headers made from a seed and a list written by hand, tried on a service.
//!
//! Each set belongs to a [`HostileClass`]. A handler publishes onwards what it is given, and everything that goes out is held
//! against what came in by an oracle and a grammar that share no code with the propagators.

pub mod cases;
mod dead_letters;
mod generated;
pub mod grammar;
mod log;
mod oracle;
mod outgoing;
mod random;
mod run;
mod set;
mod stranger;
mod suite;
mod tally;
mod trial;
mod written;

#[cfg(test)]
mod tests;

use throughline_core::Headers;

pub use self::set::{HeaderSet, HostileClass, MARKER};
pub use self::stranger::{Given, PlainStranger, Stranger, Strangers};
pub use self::suite::run;
pub use self::tally::Tally;
pub use self::trial::Trial;

const SEED: u64 = 0x7468_726f_7567_686c;

/// How many sets are made from the seed.
pub const GENERATED: usize = 10_000;

/// Returns all sets: the hand-written ones first.
pub fn corpus() -> Vec<HeaderSet> {
    let mut sets = written::sets();
    sets.extend(generated::sets(SEED, GENERATED));
    sets
}

/// Returns the hand-written sets and as many of the others, for trials that need not have them all.
pub fn small_corpus(generated: usize) -> Vec<HeaderSet> {
    let mut sets = written::sets();
    sets.extend(generated::sets(SEED, generated));
    sets
}

/// Checks what a service that trusts strangers published while it worked on a set: a message of its own, and one with a copy of the headers
/// it was given. For doors that the suite has no handler for.
pub fn check(set: &HeaderSet, given: Given, own: &Headers, copy: &Headers) -> Result<(), String> {
    outgoing::Case::new(set, given, &Trial::trusting()).check_both(own, copy).map(drop)
}

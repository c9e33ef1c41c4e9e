//! What a broker does with messages: one case for each sentence.

/// Makes a handler that keeps clones of what it needs.
macro_rules! handler {
    ([$($kept:ident),*] |$($argument:ident: $type:ty),*| $body:block) => {{
        $(let $kept = $kept.clone();)*
        move |$($argument: $type),*| {
            $(let $kept = $kept.clone();)*
            async move $body
        }
    }};
}

mod baggage;
mod batches;
mod bodies;
mod configuration;
mod failures;
mod flow;
mod groups;
mod requests;
mod settlement;
mod shutdown;
mod traces;

use throughline_core::broker::Subscription;
use throughline_core::{App, Delivery};

pub use self::baggage::*;
pub use self::batches::*;
pub use self::bodies::*;
pub use self::configuration::*;
pub use self::failures::*;
pub use self::flow::*;
pub use self::groups::*;
pub use self::requests::*;
pub use self::settlement::*;
pub use self::shutdown::*;
pub use self::traces::*;
use super::bench::body_of;
use super::wait::Seen;

/// A body and which delivery of it this is.
type Note = (String, u32);

fn note(delivery: &Delivery) -> Note {
    (body_of(delivery), delivery.attempt())
}

/// An app that notes what it is handed and is content with it.
fn collecting(subscription: Subscription, seen: &Seen<Note>) -> App {
    App::new().subscribe(subscription, handler!([seen] |delivery: Delivery| { seen.add(note(&delivery)) }))
}

fn bodies(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|(body, _)| body.as_str()).collect()
}

fn sorted(notes: &[Note]) -> Vec<&str> {
    let mut bodies = bodies(notes);
    bodies.sort_unstable();
    bodies
}

fn left_out(capability: &str) {
    eprintln!("left out: this broker lacks {capability}");
}

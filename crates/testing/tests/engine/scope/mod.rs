//! What a message's scope promises, however late it is made: changed baggage is carried, attributes are kept, and the right span is
//! the parent (BAGG-11, GEN-06, GEN-07, TRAP-02). Each story is told in every state of telemetry.

mod again;
mod attempts;
mod batches;
mod copies;
mod handlers;
mod middleware;
mod raw;
mod states;

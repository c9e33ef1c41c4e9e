//! What is current while a message is handled: its scope, and what users see of it.

mod attempt;
pub(crate) mod baggage;
mod delivery;
mod scope;
mod scope_state;
pub(crate) mod span;

pub(crate) use self::baggage::{Baggage, CurrentBaggage};
pub use self::scope::Scope;
pub(crate) use self::scope::publish_context;
pub(crate) use self::scope_state::ScopeState;
pub(crate) use self::span::{CurrentSpan, ProcessSpan};

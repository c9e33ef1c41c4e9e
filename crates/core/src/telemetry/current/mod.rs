//! What is current while a message is handled: its scope, and what users see of it.

mod attempt;
mod baggage;
mod delivery;
mod scope;
mod scope_state;
mod span;

pub use self::baggage::{Baggage, CurrentBaggage};
pub use self::scope::Scope;
pub(crate) use self::scope::publish_context;
pub(crate) use self::scope_state::ScopeState;
pub use self::span::{CurrentSpan, ProcessSpan};

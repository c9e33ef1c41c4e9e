//! Publishing, from a handler and from anywhere: [`Publisher`] and the calls it makes.

mod hand_over;
pub(crate) mod publisher;
mod publishing;

pub(crate) use self::publisher::Publisher;
pub use self::publishing::{Publishing, Requesting};

//! Publishing, from a handler and from anywhere: [`Publisher`] and the calls it makes.

mod hand_over;
mod publisher;
mod publishing;

pub use self::publisher::Publisher;
pub use self::publishing::{Publishing, Requesting};

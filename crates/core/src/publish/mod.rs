//! Publishing, from a handler and from anywhere: [`Publisher`] and the calls it makes.

mod deliver;
mod publisher;
mod publishing;

pub(crate) use self::deliver::deliver_with;
pub use self::publisher::Publisher;
pub use self::publishing::{Publishing, Requesting};

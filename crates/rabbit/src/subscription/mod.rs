mod arguments;
mod check;
mod exchange;
mod queue;
mod route;

pub(crate) use self::exchange::Declares;
pub use self::exchange::Exchange;
pub(crate) use self::queue::Binding;
pub use self::queue::{Overflow, Queue, StreamOffset};

mod check;
mod exchange;
mod queue;

pub(crate) use self::exchange::Declares;
pub use self::exchange::Exchange;
pub(crate) use self::queue::Binding;
pub use self::queue::{Overflow, Queue, StreamOffset};

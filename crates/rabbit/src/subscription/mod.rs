mod arguments;
mod check;
mod choices;
mod description;
mod exchange;
mod queue;
mod route;

pub use self::choices::{Overflow, StreamOffset};
pub(crate) use self::exchange::Declares;
pub use self::exchange::Exchange;
pub(crate) use self::queue::Binding;
pub use self::queue::Queue;

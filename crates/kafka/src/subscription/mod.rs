//! What to consume: a topic, as a typed builder.

mod choices;
mod new_topic;
mod replies;
mod retry;
mod topic;

pub use self::choices::{Assignment, Isolation, StartPosition};
pub use self::new_topic::NewTopic;
pub(crate) use self::replies::ReplyTopics;
pub(crate) use self::retry::{RETRY_WAIT, WaitsOn, waiting_in};
pub use self::topic::Topic;
pub(crate) use self::topic::{Commit, Order};

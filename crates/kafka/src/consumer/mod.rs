//! The consumer behind a subscription: a thread that polls, the partitions it owns and what is committed of them.

mod awaited;
mod burst;
mod commit;
mod commits;
mod context;
mod hand_out;
mod handle;
mod judge;
mod member;
mod orders;
mod ownership;
mod partition;
mod poller;
mod report;
mod settings;
mod shared;
mod start;
mod waiting;
mod watermarks;

pub(crate) use self::handle::ConsumerHandle;
pub(crate) use self::partition::Partition;
pub(crate) use self::shared::Shared;

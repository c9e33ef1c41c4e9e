//! Plain data of a message: what arrives, what leaves, and what is decided about it. No I/O.
//!
//! [`Delivery`] is what a broker hands over (one message or a batch), [`Envelope`] is what is published,
//! [`Headers`] travel with both, [`Outcome`] is what a handler produced and [`Settlement`] what the broker is told.

mod delivery;
mod description;
mod destination;
mod envelope;
mod extensions;
mod failure;
mod fate;
mod headers;
mod native;
mod outcome;
mod pattern;
mod properties;
mod receipt;
mod settlement;

pub use self::delivery::Delivery;
pub(crate) use self::delivery::{Runtime, Surroundings};
pub use self::description::{OperationType, Operations, Source, System, Target};
pub use self::destination::Destination;
pub use self::envelope::{CreationContext, Envelope};
use self::extensions::Extensions;
pub use self::failure::{BoxError, Failure, IntoFailure};
pub(crate) use self::fate::Fate;
pub use self::headers::Headers;
pub use self::native::{Native, NativeHeaders};
pub use self::outcome::Outcome;
pub use self::pattern::{Pattern, Wildcards};
pub use self::receipt::{Answer, Receipt};
pub use self::settlement::Settlement;

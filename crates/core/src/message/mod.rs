//! Plain data of a message: what arrives, what leaves, and what is decided about it. No I/O.
//!
//! [`Delivery`] is what a broker hands over (one message or a batch), [`Envelope`] is what is published,
//! [`Headers`] travel with both, [`Outcome`] is what a handler produced and [`Settlement`] what the broker is told.

pub(crate) mod delivery;
mod description;
pub(crate) mod destination;
pub(crate) mod envelope;
mod extensions;
pub(crate) mod failure;
mod fate;
pub mod header_text;
pub(crate) mod headers;
mod native;
pub(crate) mod outcome;
pub(crate) mod pattern;
mod properties;
pub(crate) mod receipt;
pub(crate) mod settlement;

pub(crate) use self::delivery::Delivery;
pub(crate) use self::delivery::{Runtime, Surroundings};
pub use self::description::{OperationType, Operations, Source, System, Target};
pub(crate) use self::destination::Destination;
pub use self::envelope::CreationContext;
pub(crate) use self::envelope::Envelope;
use self::extensions::Extensions;
pub(crate) use self::failure::{BoxError, Failure, IntoFailure, error_type_of};
pub(crate) use self::fate::Fate;
pub(crate) use self::headers::Headers;
pub use self::native::{Native, NativeHeaders};
pub(crate) use self::outcome::Outcome;
pub(crate) use self::pattern::Pattern;
pub use self::receipt::Answer;
pub(crate) use self::receipt::Receipt;
pub(crate) use self::settlement::Settlement;

//! Finds the message brokers that tests and examples need, or starts them.
//!
//! The program of this package is `cargo xtask` (see `cargo xtask help`). This library holds the part that
//! the example programs share with it: one call returns a [`Server`](servers::Server) that is ready, and
//! dropping the value stops whatever was started for it.
//!
//! # Examples
//!
//! ```no_run
//! use xtask::servers::nats;
//!
//! let server = nats::find_or_start()?;
//! println!("a NATS server answers at {}", server.url());
//! # Ok::<(), xtask::servers::ServerError>(())
//! ```
//!
//! # Where things are
//!
//! | module | holds |
//! | --- | --- |
//! | [`servers`] | the table of brokers, and one module per broker |
//! | [`interrupt`] | Ctrl-C as a flag, so that what was started is stopped before the program ends |
//! | [`tools`] | other programs: found on the path, run with a time limit |
//! | [`workspace`] | what `cargo metadata` says about this workspace |

pub mod interrupt;
pub mod servers;
pub mod tools;
pub mod workspace;

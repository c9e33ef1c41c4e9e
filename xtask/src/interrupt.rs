//! Ctrl-C as a flag.
//!
//! A program that dies of the signal leaves its servers' data behind. With [`install`] the signal only
//! raises a flag; everything here that waits looks at it, gives up, and so lets the values be dropped that
//! stop the servers.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Turns Ctrl-C (and SIGTERM and SIGHUP on Unix) into the flag that [`requested`] reads.
///
/// A library never does this on its own: whether a signal ends the program is the program's decision.
///
/// # Errors
///
/// When the system refuses, or when this was called before.
///
/// # Examples
///
/// ```
/// xtask::interrupt::install()?;
/// assert!(!xtask::interrupt::requested());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn install() -> io::Result<()> {
    ctrlc::set_handler(|| REQUESTED.store(true, Ordering::SeqCst)).map_err(io::Error::other)
}

/// Whether the program was asked to stop since [`install`].
///
/// # Examples
///
/// ```
/// while !xtask::interrupt::requested() {
///     // one more piece of work
///     # break;
/// }
/// ```
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

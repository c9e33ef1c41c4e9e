//! The memory of this process.

use std::fs;

/// The kernel counts resident memory in pages of so many bytes.
const PAGE: f64 = 4096.0;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Returns the resident memory in MiB; `None` where the kernel does not say it.
pub(crate) fn resident() -> Option<f64> {
    let pages: f64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE / MEBIBYTE)
}

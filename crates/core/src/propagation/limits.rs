//! The limits of baggage and the count of what they drop.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::baggage::Baggage;
use tracing::{debug, warn};

/// The number of members that are read and written at most.
pub(super) const MAX_MEMBERS: usize = 64;

/// The number of bytes that are read and written at most.
pub(super) const MAX_BYTES: usize = 8192;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns how many baggage members this process dropped because a limit was exceeded.
///
/// The limits are 64 members and 8192 bytes of text, for reading and for writing. A text over 8192 bytes is ignored as
/// a whole when it is read; its members are not looked at and not counted. The first drop is logged as a warning,
/// later ones on level debug, always without content.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::{baggage, dropped_members};
///
/// let before = dropped_members();
/// let header: Vec<String> = (0..70).map(|n| format!("k{n}=v")).collect();
/// assert_eq!(baggage::parse(&header.join(",")).len(), 64);
/// assert!(dropped_members() >= before + 6);
/// ```
#[must_use]
pub fn dropped_members() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Counts and logs dropped members; nothing when there are none.
pub(super) fn count_dropped(members: usize) {
    if members == 0 {
        return;
    }
    let members = members as u64;
    if DROPPED.fetch_add(members, Ordering::Relaxed) == 0 {
        warn!(members, "baggage members dropped over a limit, further drops are logged on debug");
    } else {
        debug!(members, "baggage members dropped over a limit");
    }
}

/// Tells whether baggage text of `bytes` may be read, and logs when it may not.
// BAGG-09.
pub(super) fn may_read(bytes: usize) -> bool {
    if bytes > MAX_BYTES {
        debug!(bytes, limit = MAX_BYTES, "incoming baggage ignored, it is over the limit");
    }
    bytes <= MAX_BYTES
}

/// Puts an entry into `baggage` and tells whether it is there afterwards.
///
/// `Baggage::insert` returns `None` both for "inserted" and for "refused", so the length decides.
// BAGG-17.
pub(super) fn insert(baggage: &mut Baggage, key: &str, value: String, properties: String) -> bool {
    let before = baggage.len();
    let replaced = baggage.insert_with_metadata(key.to_owned(), value, properties);
    replaced.is_some() || baggage.len() > before
}

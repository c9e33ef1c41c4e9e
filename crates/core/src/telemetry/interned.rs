use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// How many texts are kept, and how long one may be in bytes: names of subscriptions and destinations are few and short.
const MOST: usize = 1024;
const LONGEST: usize = 256;

static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// Returns a text that lives as long as the process, or `None` when there are too many of them.
///
/// The name of a span is a `Cow<'static, str>`: an owned one would be copied for every span. What is kept is never given back, so it is
/// bounded.
pub(super) fn interned(text: &str) -> Option<&'static str> {
    // A poisoned lock only means that another thread panicked between two complete changes.
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    if let Some(known) = texts.get(text) {
        return Some(known);
    }
    if texts.len() >= MOST || text.len() > LONGEST {
        return None;
    }
    let kept: &'static str = Box::leak(text.into());
    texts.insert(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once() {
        let (first, second) = (interned("process orders"), interned("process orders"));
        assert_eq!(first.map(str::as_ptr), second.map(str::as_ptr));
        assert!(first.is_some());
    }

    #[test]
    fn a_long_text_is_not_kept() {
        assert_eq!(interned(&"x".repeat(LONGEST + 1)), None);
    }
}

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tracing::{Level, error, warn};

/// How many lines of a kind are written within a window.
const MOST: u32 = 5;

/// From the first line of a kind on; at its end a line says how many were left out.
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps the log of one subscription short: of each kind of line the first few are written, and then how many were left out. Nothing is
/// done before there is a line.
#[derive(Debug)]
pub(super) struct LogLimit {
    destination: String,
    group: Option<Arc<str>>,
    kinds: Mutex<Vec<Kind>>,
}

/// Lines with the same text.
#[derive(Debug)]
struct Kind {
    level: Level,
    text: Cow<'static, str>,
    began: Instant,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    pub(super) fn new(destination: &str, group: Option<Arc<str>>) -> Self {
        Self { destination: destination.to_owned(), group, kinds: Mutex::default() }
    }

    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    /// Tells whether a line may be written, and counts it where not.
    pub(super) fn admits(self: &Arc<Self>, level: Level, text: Cow<'static, str>) -> bool {
        let now = Instant::now();
        let mut kinds = self.lock();
        let Some(index) = kinds.iter().position(|kind| kind.text == text) else {
            kinds.push(Kind { level, text, began: now, written: 1, left_out: 0 });
            return true;
        };
        let Some(kind) = kinds.get_mut(index) else { return true };
        let mut late = 0;
        if now.duration_since(kind.began) >= WINDOW {
            (kind.began, kind.written) = (now, 0);
            // There was no runtime that could have said it in time.
            late = std::mem::take(&mut kind.left_out);
        }
        let is_admitted = kind.written < MOST;
        if is_admitted {
            kind.written += 1;
        } else {
            kind.left_out += 1;
            if kind.left_out == 1 {
                self.report_later(kind.text.clone(), kind.began);
            }
        }
        drop(kinds);
        self.report(level, &text, late);
        is_admitted
    }

    /// Says now how many lines were left out.
    pub(super) fn flush(&self) {
        let mut kinds = self.lock();
        let left_out: Vec<_> =
            kinds.iter_mut().map(|kind| (kind.level, kind.text.clone(), std::mem::take(&mut kind.left_out))).collect();
        drop(kinds);
        for (level, text, left_out) in left_out {
            self.report(level, &text, left_out);
        }
    }

    /// Says it at the end of the window, also where no more lines come. Nobody waits for the task, and it keeps nothing alive.
    fn report_later(self: &Arc<Self>, text: Cow<'static, str>, began: Instant) {
        let Ok(runtime) = Handle::try_current() else { return };
        let limit = Arc::downgrade(self);
        runtime.spawn(async move {
            sleep_until(began + WINDOW).await;
            let Some(limit) = limit.upgrade() else { return };
            let mut kinds = limit.lock();
            let ended = kinds.iter_mut().find(|kind| kind.text == text && kind.began == began);
            let Some((level, left_out)) = ended.map(|kind| (kind.level, std::mem::take(&mut kind.left_out))) else {
                return;
            };
            drop(kinds);
            limit.report(level, &text, left_out);
        });
    }

    fn report(&self, level: Level, line: &str, left_out: u64) {
        if left_out == 0 {
            return;
        }
        let (destination, group) = (&*self.destination, self.group.as_deref());
        if level == Level::ERROR {
            error!(destination, group, left_out, line, "lines that say the same were left out");
        } else {
            warn!(destination, group, left_out, line, "lines that say the same were left out");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An app that is dropped says it as well.
impl Drop for LogLimit {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn storm(limit: &Arc<LogLimit>, text: &'static str, count: usize) -> usize {
        (0..count).filter(|_| limit.admits(Level::WARN, text.into())).count()
    }

    fn left_out(limit: &LogLimit) -> u64 {
        limit.lock().iter().map(|kind| kind.left_out).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_lines_of_a_window_are_written_and_the_others_counted() {
        let limit = Arc::new(LogLimit::new("orders", None));
        assert_eq!(storm(&limit, "a", 1_000), 5);
        assert_eq!(storm(&limit, "b", 3), 3, "each kind for itself");
        assert_eq!(left_out(&limit), 995);
        advance(WINDOW - Duration::from_millis(1)).await;
        assert_eq!(storm(&limit, "a", 1), 0);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(left_out(&limit), 0, "it was said though nothing came");
        assert_eq!(storm(&limit, "a", 10), 5, "a new window");
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_of_a_window_keeps_nothing_alive() {
        let limit = Arc::new(LogLimit::new("orders", None));
        assert_eq!(storm(&limit, "a", 10), 5);
        let gone = Arc::downgrade(&limit);
        drop(limit);
        assert!(gone.upgrade().is_none());
    }
}

use std::sync::{Mutex, PoisonError};

use throughline_core::broker::Seldom;
use tracing::warn;

/// Counts the headers of strangers that were escaped or left out when their message was passed on, and says so seldom.
#[derive(Debug, Default)]
pub(crate) struct Altered(Mutex<Seldom>);

impl Altered {
    pub(crate) fn note(&self, headers: u64, subject: &str) {
        if headers == 0 {
            return;
        }
        let due = self.0.lock().unwrap_or_else(PoisonError::into_inner).note(headers);
        if let Some(count) = due {
            tell(count, Some(subject));
        }
    }
}

impl Drop for Altered {
    fn drop(&mut self) {
        let count = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if count > 0 {
            tell(count, None);
        }
    }
}

fn tell(count: u64, destination: Option<&str>) {
    warn!(
        destination,
        count,
        "headers of a message that is passed on are not ASCII, which alone NATS carries: texts are escaped, others left out"
    );
}

//! Which traces are shown.

use std::time::Duration;

use throughline_waterfall::{Trace, clean};

use super::held::Loose;
use crate::arguments::View;

/// What a trace must have; all of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// One of these services; any if there are none.
    services: Vec<String>,
    errors: bool,
    slower_than: Duration,
}

impl Filter {
    pub(super) fn new(options: &View) -> Self {
        let services = options.service.iter().map(|name| clean(name)).collect();
        Self { services, errors: options.errors, slower_than: options.slower_than.unwrap_or_default() }
    }

    pub(super) fn shows(&self, trace: &Trace) -> bool {
        trace.length() >= self.slower_than
            && (!self.errors || trace.errors() > 0)
            && (self.services.is_empty() || trace.rows().iter().any(|row| self.has(&row.span.service)))
    }

    /// Whether a log record of no trace is shown. It takes no time, so where traces are to be slow it is not.
    pub(super) fn shows_record(&self, record: &Loose) -> bool {
        self.slower_than.is_zero()
            && (!self.errors || record.severe)
            && (self.services.is_empty() || self.has(&record.service))
    }

    fn has(&self, service: &str) -> bool {
        self.services.iter().any(|name| name == service)
    }
}

//! What became of the telemetry of a program.

use std::fmt;

/// What became of the telemetry of a program, per signal.
///
/// Several exporters are added up: a span that went to two counts twice.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::console().build()?;
/// let report = telemetry.shutdown().await?;
/// assert_eq!(report.to_string(), "0 spans exported, 0 dropped, 0 never ended");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Spans handed to their destination.
    pub exported_spans: u64,
    /// Spans that ended but were lost, because more were waiting than memory was set aside for, or because they could not be delivered.
    pub dropped_spans: u64,
    /// Spans that had started but not ended at shutdown.
    pub unfinished_spans: u64,
    /// Log records handed to their destination; the console does not count them.
    pub exported_logs: u64,
    /// Log records that were lost.
    pub dropped_logs: u64,
    /// How often the metrics were delivered; the console does not count that.
    pub metric_exports: u64,
    /// How often the metrics could not be delivered, or not all of them. A later export says what an earlier one would have.
    pub failed_metric_exports: u64,
}

impl ShutdownReport {
    /// Puts what became of the spans at two destinations into one report. A span that never ended is missing at both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            exported_spans: self.exported_spans + other.exported_spans,
            dropped_spans: self.dropped_spans + other.dropped_spans,
            unfinished_spans: self.unfinished_spans.max(other.unfinished_spans),
            exported_logs: self.exported_logs + other.exported_logs,
            dropped_logs: self.dropped_logs + other.dropped_logs,
            metric_exports: self.metric_exports + other.metric_exports,
            failed_metric_exports: self.failed_metric_exports + other.failed_metric_exports,
        }
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exported_spans, dropped_spans, unfinished_spans, exported_logs, dropped_logs, .. } = self;
        write!(f, "{exported_spans} spans exported, {dropped_spans} dropped, {unfinished_spans} never ended")?;
        if exported_logs + dropped_logs > 0 {
            write!(f, "; {exported_logs} log records exported, {dropped_logs} dropped")?;
        }
        let Self { metric_exports, failed_metric_exports, .. } = self;
        if metric_exports + failed_metric_exports > 0 {
            write!(f, "; metrics exported {metric_exports} times, {failed_metric_exports} failed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_destinations_make_one_report() {
        let report = |exported_spans, dropped_spans, unfinished_spans| ShutdownReport {
            exported_spans,
            dropped_spans,
            unfinished_spans,
            ..ShutdownReport::default()
        };
        assert_eq!(report(3, 0, 1).and(report(1, 2, 1)), report(4, 2, 1));
        assert_eq!(ShutdownReport::default().and(report(3, 1, 2)), report(3, 1, 2));
    }

    #[test]
    fn signals_that_were_counted_are_named() {
        let logs = ShutdownReport { exported_logs: 2, dropped_logs: 1, metric_exports: 3, ..ShutdownReport::default() };
        assert_eq!(
            logs.to_string(),
            "0 spans exported, 0 dropped, 0 never ended; 2 log records exported, 1 dropped; metrics exported 3 times, 0 failed"
        );
    }
}

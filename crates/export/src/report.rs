//! What became of the spans of a program.

use std::fmt;

/// What became of the spans.
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
    /// Spans that ended but were lost, because more were waiting than memory was set aside for.
    pub dropped_spans: u64,
    /// Spans that had started but not ended at shutdown.
    pub unfinished_spans: u64,
}

impl ShutdownReport {
    /// Puts what became of the spans at two destinations into one report. A span that never ended is missing at both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            exported_spans: self.exported_spans + other.exported_spans,
            dropped_spans: self.dropped_spans + other.dropped_spans,
            unfinished_spans: self.unfinished_spans.max(other.unfinished_spans),
        }
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exported_spans, dropped_spans, unfinished_spans } = self;
        write!(f, "{exported_spans} spans exported, {dropped_spans} dropped, {unfinished_spans} never ended")
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
        };
        assert_eq!(report(3, 0, 1).and(report(1, 2, 1)), report(4, 2, 1));
        assert_eq!(ShutdownReport::default().and(report(3, 1, 2)), report(3, 1, 2));
    }
}

//! What became of what came.

use std::fmt;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    /// Pictures, and the spans in them.
    pub(super) pictures: u64,
    pub(super) spans: u64,
    /// Traces that the options leave out.
    pub(super) left_out: u64,
    pub(super) records: u64,
    pub(super) losses: Losses,
}

/// What is not shown although nobody asked for that.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Losses {
    /// Spans without valid ids.
    pub(super) refused: u64,
    /// Names, texts and lists that were cut.
    pub(super) cut: u64,
    /// Log records that there was no room for.
    pub(super) records: u64,
    /// Points of time series that there was no room for, or that are of a kind that is not shown.
    pub(super) points: u64,
    /// Requests that were not understood.
    pub(super) unreadable: u64,
    /// Requests that were too large.
    pub(super) too_large: u64,
    /// Requests that were sent away for a moment; their senders try again.
    pub(super) sent_away: u64,
}

impl Losses {
    pub(super) fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.cut += other.cut;
        self.records += other.records;
        self.points += other.points;
        self.unreadable += other.unreadable;
        self.too_large += other.too_large;
        self.sent_away += other.sent_away;
    }

    /// Those of which there were none before.
    pub(super) fn new_since(&self, before: &Self) -> Self {
        let new = |now, before| if before == 0 { now } else { 0 };
        Self {
            refused: new(self.refused, before.refused),
            cut: new(self.cut, before.cut),
            records: new(self.records, before.records),
            points: new(self.points, before.points),
            unreadable: new(self.unreadable, before.unreadable),
            too_large: new(self.too_large, before.too_large),
            sent_away: new(self.sent_away, before.sent_away),
        }
    }

    /// The counts that are not zero, in words.
    fn words(&self) -> Vec<String> {
        let counts = [
            (self.refused, "span", "refused: no valid ids"),
            (self.cut, "text or list", "cut"),
            (self.records, "log record", "dropped: no room"),
            (self.points, "measurement", "dropped: no room, or a kind that is not shown"),
            (self.unreadable, "request", "refused: not understood"),
            (self.too_large, "request", "refused: too large"),
            (self.sent_away, "request", "sent away until there is room: the sender tries again"),
        ];
        let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
        counts.map(|(count, what, why)| format!("{} {why}", counted(count, what))).collect()
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One line for each loss.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().iter().try_for_each(|words| writeln!(f, "{words}"))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pictures, spans, left_out, records, losses } = self;
        let (pictures, spans, records) =
            (counted(*pictures, "trace"), counted(*spans, "span"), counted(*records, "log record"));
        write!(f, "{pictures} drawn with {spans}, {records}")?;
        if *left_out > 0 {
            write!(f, ", {} left out by the options", counted(*left_out, "trace"))?;
        }
        write!(f, "\n{losses}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Losses, Tally};

    #[test]
    fn only_what_was_lost_is_said() {
        let mut tally = Tally { pictures: 2, spans: 9, records: 4, ..Tally::default() };
        assert_eq!(tally.to_string(), "2 traces drawn with 9 spans, 4 log records\n");
        tally.left_out = 1;
        tally.losses = Losses { refused: 3, ..Losses::default() };
        assert_eq!(
            tally.to_string(),
            "2 traces drawn with 9 spans, 4 log records, 1 trace left out by the options\n\
             3 spans refused: no valid ids\n"
        );
    }
}

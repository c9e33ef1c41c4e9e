use std::collections::BTreeMap;
use std::fmt;

use super::outgoing::PassedOn;
use super::set::HostileClass;
use super::stranger::Given;

/// The counts of what happened, for each class.
#[derive(Debug, Default)]
pub struct Tally {
    rows: BTreeMap<HostileClass, Row>,
    drops_logged: usize,
}

#[derive(Clone, Debug, Default)]
struct Row {
    sets: usize,
    refused: usize,
    held_back: usize,
    by_hand: usize,
    handled: usize,
    continued: usize,
    with_baggage: usize,
    entries_sent: usize,
    entries_passed_on: usize,
}

impl Tally {
    pub(super) fn sent(&mut self, class: HostileClass, given: Given) {
        let row = self.rows.entry(class).or_default();
        row.sets += 1;
        row.refused += usize::from(given == Given::Refused);
        row.held_back += usize::from(given == Given::HeldBack);
        row.by_hand += usize::from(given == Given::ByHand);
    }

    pub(super) fn handled(&mut self, class: HostileClass, entries_sent: usize, passed_on: &PassedOn) {
        let row = self.rows.entry(class).or_default();
        row.handled += 1;
        row.continued += usize::from(passed_on.continued);
        row.with_baggage += usize::from(passed_on.entries > 0);
        row.entries_sent += entries_sent;
        row.entries_passed_on += passed_on.entries;
    }

    pub(super) fn logged(&mut self, log: &str) {
        self.drops_logged += log.matches("baggage members dropped over a limit").count();
    }

    /// How often it was logged that entries were dropped.
    pub fn drops_logged(&self) -> usize {
        self.drops_logged
    }

    /// How many sets there were, and how many of them were handled.
    pub fn totals(&self) -> (usize, usize) {
        let sum = |what: fn(&Row) -> usize| self.rows.values().map(what).sum();
        (sum(|row| row.sets), sum(|row| row.handled))
    }

    /// How many messages went on in the trace of a stranger, and how many of its entries were passed on.
    pub fn passed_on(&self) -> (usize, usize) {
        let sum = |what: fn(&Row) -> usize| self.rows.values().map(what).sum();
        (sum(|row| row.continued), sum(|row| row.entries_passed_on))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| class | sets | refused | held back | by hand | handled | trace continued | new trace | baggage kept | entries sent | passed on |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        let mut all = Row::default();
        for (class, row) in &self.rows {
            line(f, class, row)?;
            all.add(row);
        }
        line(f, &"all", &all)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &dyn fmt::Display, row: &Row) -> fmt::Result {
    let Row { sets, refused, held_back, by_hand, handled, continued, with_baggage, entries_sent, entries_passed_on } =
        row;
    let new = handled - continued;
    writeln!(
        f,
        "| {name} | {sets} | {refused} | {held_back} | {by_hand} | {handled} | {continued} | {new} | {with_baggage} | {entries_sent} | {entries_passed_on} |"
    )
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.sets += other.sets;
        self.refused += other.refused;
        self.held_back += other.held_back;
        self.by_hand += other.by_hand;
        self.handled += other.handled;
        self.continued += other.continued;
        self.with_baggage += other.with_baggage;
        self.entries_sent += other.entries_sent;
        self.entries_passed_on += other.entries_passed_on;
    }
}

//! Draws one trace.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use crate::scale::{duration, marks};
use crate::screen::Screen;
use crate::style::{Ink, Line, clean};
use crate::trace::{Row, Trace};

/// The widest column of services.
const MAX_SERVICE: usize = 16;
/// The column of durations, with the space before it.
const DURATION: usize = 10;
/// The space between durations and bars.
const GAP: usize = 2;
/// What a deep span has for its name.
const NAME: usize = 16;

/// Where things stand.
struct Columns {
    /// Where the tree begins.
    tree: usize,
    /// Where the durations begin.
    durations: usize,
    /// Where the bars begin.
    bars: usize,
    /// Where the line ends.
    end: usize,
}

impl Columns {
    fn new(screen: &Screen) -> Self {
        let width = screen.width;
        let tree = screen.style.widest_service().min(MAX_SERVICE).min(width / 5) + 1;
        let bars = width - width * 3 / 10;
        Self { tree, durations: bars - GAP - DURATION, bars, end: width }
    }

    /// How wide the lines to the left of a name may be.
    fn deepest(&self) -> usize {
        let room = self.durations - self.tree;
        room.saturating_sub(NAME).max(room / 2)
    }
}

impl Trace {
    /// Returns the picture, which ends in an empty line.
    pub fn draw(&self, screen: &Screen) -> String {
        // Known before the columns are: they are as wide as the longest name.
        let services: Vec<Ink> = self.rows().iter().map(|row| screen.style.service(&row.span.service)).collect();
        let columns = Columns::new(screen);
        let line = || Line::new(&screen.style, screen.width);
        let mut picture = header(self, &columns, line());
        if !self.linked().is_empty() {
            let linked: Vec<String> = self.linked().iter().map(|id| short(&id.to_string())).collect();
            picture += &listed(line().push(Ink::Dim, "linked from"), &linked, ", ").end();
        }
        for (row, service) in self.rows().iter().zip(services) {
            picture += &draw_row(row, self.length(), &columns, service, line);
        }
        if !self.baggage().is_empty() {
            let entries: Vec<String> = self.baggage().iter().map(|(key, value)| format!("{key}={value}")).collect();
            picture += &listed(line().push(Ink::Dim, "baggage"), &entries, " ").end();
        }
        picture.push('\n');
        picture
    }
}

fn header(trace: &Trace, columns: &Columns, line: Line<'_>) -> String {
    let length = duration(trace.length());
    let what = format!("trace {}", short(&trace.id().to_string()));
    let continued = if trace.is_continued() { " (continued)" } else { "" };
    let (spans, errors) = (trace.rows().len(), trace.errors());
    let counts = format!("  {}  {}  {length}", counted(spans, "span"), counted(trace.services(), "service"));
    let mut line = line.push(Ink::Bold, &what).push(Ink::Dim, continued).push(Ink::Plain, &counts);
    if errors > 0 {
        line = line.push(Ink::Plain, "  ").push(Ink::Error, &counted(errors, "error"));
    }
    if line.room(columns.bars) < GAP {
        return line.end();
    }
    for (column, label) in marks(trace.length(), columns.end - columns.bars) {
        line = line.move_to(columns.bars + column).push(Ink::Dim, &label);
    }
    line.end()
}

fn draw_row<'a>(row: &Row, total: Duration, columns: &Columns, service: Ink, line: impl Fn() -> Line<'a>) -> String {
    let error = row.span.error();
    let ink = if error.is_some() { Ink::Error } else { service };
    let name_ink = if error.is_some() { Ink::Error } else { Ink::Plain };
    let name = clean(&row.span.name);
    let bar = Bar::new(row, total, columns.end - columns.bars);
    let queued =
        row.queued.filter(|_| bar.gap > 0).map(|time| format!("queued {}", duration(time))).unwrap_or_default();
    let (branch, indent) = (tail(&row.branch, columns.deepest()), tail(&row.below, columns.deepest()));
    let room = columns.durations - columns.tree - branch.width();
    let label = Label::new(room, &name, &row.span.notes().join(" "), &queued);
    let first = line()
        .push_until(columns.tree - 1, service, &clean(&row.span.service))
        .move_to(columns.tree)
        .push(Ink::Dim, &branch)
        .push_until(columns.durations - label.width(), name_ink, &name)
        .push(Ink::Dim, &label.beside)
        .push_right(columns.durations, Ink::Dim, &label.queued)
        .push_right(columns.durations + DURATION, Ink::Plain, &duration(row.span.duration()))
        .move_to(columns.bars + bar.begin - bar.gap)
        .push(Ink::Dim, &"░".repeat(bar.gap))
        .push(ink, &"█".repeat(bar.length))
        .end();
    let below =
        |(ink, text): (Ink, String)| line().move_to(columns.tree).push(Ink::Dim, &indent).push(ink, &text).end();
    first + &under(row, label.below, error).into_iter().map(below).collect::<String>()
}

/// What is said of a span beside its name, between that and its duration, and below it.
struct Label {
    beside: String,
    queued: String,
    below: String,
}

impl Label {
    /// Shares out `room` columns: for the name, then for the time in the queue, then for the notes. What has no room goes below.
    fn new(room: usize, name: &str, notes: &str, queued: &str) -> Self {
        let spaced = |text: &str| if text.is_empty() { 0 } else { text.width() + 2 };
        let fits = |texts: &[&str]| {
            texts.iter().all(|text| text.is_empty())
                || name.width() + texts.iter().map(|text| spaced(text)).sum::<usize>() <= room
        };
        match (notes.is_empty(), fits(&[notes, queued]), fits(&[queued])) {
            (true, true, _) => Self::of("", queued, ""),
            (true, false, _) => Self::of("", "", queued),
            (false, true, _) => Self::of(&format!("  {notes}"), queued, ""),
            (false, false, true) => Self::of("", queued, notes),
            (false, false, false) => Self::of("", "", &format!("{queued} {notes}")),
        }
    }

    fn of(beside: &str, queued: &str, below: &str) -> Self {
        Self { beside: beside.to_owned(), queued: queued.to_owned(), below: below.to_owned() }
    }

    /// How much of the line the name has to leave.
    fn width(&self) -> usize {
        self.beside.width() + if self.queued.is_empty() { 0 } else { self.queued.width() + 2 }
    }
}

/// What stands below a span: notes that did not fit beside its name, its error, its events and log records.
fn under(row: &Row, notes: String, error: Option<String>) -> Vec<(Ink, String)> {
    let notes = (!notes.is_empty()).then_some((Ink::Dim, notes));
    let error = error.map(|error| (Ink::Error, format!("✗ {error}")));
    let remarks = row.remarks.iter().map(|remark| (Ink::Dim, format!("· {remark}")));
    notes.into_iter().chain(error).chain(remarks).collect()
}

/// Where the bar of a span is, in columns.
struct Bar {
    /// How long the gap before it is, where the message waited: nothing if that was too short to be seen.
    gap: usize,
    begin: usize,
    /// At least one.
    length: usize,
}

impl Bar {
    /// Never outside of `columns`.
    fn new(row: &Row, total: Duration, columns: usize) -> Self {
        if total.is_zero() {
            return Self { gap: 0, begin: 0, length: 1 };
        }
        let column = |time: Duration| time.as_secs_f64() / total.as_secs_f64() * columns as f64;
        let begin = (column(row.offset) as usize).min(columns - 1);
        let end = (column(row.offset + row.span.duration()).round() as usize).clamp(begin + 1, columns);
        let waited = row.queued.unwrap_or_default();
        // Rounded, as is the end of the bar of the publish.
        let gap = begin - (column(row.offset.saturating_sub(waited)).round() as usize).min(begin);
        let gap = if column(waited) >= 1.0 { gap } else { 0 };
        Self { gap, begin, length: end - begin }
    }
}

/// The end of lines that are wider than `room`: a deep span keeps its name.
fn tail(lines: &str, room: usize) -> String {
    let width = lines.chars().count();
    if width <= room {
        return lines.to_owned();
    }
    std::iter::once('…').chain(lines.chars().skip(width - room.saturating_sub(1))).collect()
}

/// Appends entries as long as they fit, and says how many more there are.
fn listed<'a>(mut line: Line<'a>, entries: &[String], separator: &str) -> Line<'a> {
    let more = |left: usize| format!(" and {left} more");
    for (place, entry) in entries.iter().enumerate() {
        let left = entries.len() - place;
        let text = format!("{}{entry}", if place == 0 { " " } else { separator });
        let reserve = if left > 1 { more(left - 1).width() } else { 0 };
        if place > 0 && text.width() + reserve > line.room(usize::MAX) {
            return line.push(Ink::Dim, &more(left));
        }
        line = line.push(Ink::Plain, &text);
    }
    line
}

/// The part of a trace id that people compare.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

//! Draws one trace.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use super::scale::{duration, marks};
use super::screen::Screen;
use super::style::{Ink, Line};
use super::trace::{Row, Trace};

/// The widest column of services.
const MAX_SERVICE: usize = 16;
/// The column of durations, with the space before it.
const DURATION: usize = 10;
/// The space between durations and bars.
const GAP: usize = 2;

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
}

/// Returns the picture of a trace, ending in an empty line.
pub(super) fn draw(trace: &Trace, screen: &Screen) -> String {
    let columns = Columns::new(screen);
    let line = || Line::new(&screen.style, screen.width);
    let mut picture = header(trace, &columns, line());
    if !trace.linked.is_empty() {
        let linked: Vec<String> = trace.linked.iter().map(|id| short(&id.to_string())).collect();
        picture += &listed(line().push(Ink::Dim, "linked from"), &linked, ", ").end();
    }
    for row in &trace.rows {
        let service = screen.style.service(&row.service);
        picture += &draw_row(row, trace.length, &columns, service, line);
    }
    if !trace.baggage.is_empty() {
        let entries: Vec<String> = trace.baggage.iter().map(|(key, value)| format!("{key}={value}")).collect();
        picture += &listed(line().push(Ink::Dim, "baggage"), &entries, " ").end();
    }
    picture.push('\n');
    picture
}

fn header(trace: &Trace, columns: &Columns, line: Line<'_>) -> String {
    let length = duration(trace.length);
    let what = format!("trace {}", short(&trace.id.to_string()));
    let continued = if trace.continued { " (continued)" } else { "" };
    let counts = format!("  {}  {}  {length}", counted(trace.rows.len(), "span"), counted(trace.services(), "service"));
    let mut line = line.push(Ink::Bold, &what).push(Ink::Dim, continued).push(Ink::Plain, &counts);
    if trace.errors() > 0 {
        line = line.push(Ink::Plain, "  ").push(Ink::Error, &counted(trace.errors(), "error"));
    }
    if line.room(columns.bars) < GAP {
        return line.end();
    }
    for (column, label) in marks(trace.length, columns.end - columns.bars) {
        line = line.move_to(columns.bars + column).push(Ink::Dim, &label);
    }
    line.end()
}

fn draw_row<'a>(row: &Row, total: Duration, columns: &Columns, service: Ink, line: impl Fn() -> Line<'a>) -> String {
    let notes = row.notes.join(" ");
    let width = row.branch.width() + row.name.width() + 2 + notes.width();
    let beside = !notes.is_empty() && columns.tree + width <= columns.durations;
    let (label, notes) = if beside { (format!("  {notes}"), String::new()) } else { (String::new(), notes) };
    let (name, ink) = if row.error.is_some() { (Ink::Error, Ink::Error) } else { (Ink::Plain, service) };
    let (offset, bar) = bar(row, total, columns.end - columns.bars);
    let first = line()
        .push_until(columns.tree - 1, service, &row.service)
        .move_to(columns.tree)
        .push(Ink::Dim, &row.branch)
        .push_until(columns.durations - label.width(), name, &row.name)
        .push(Ink::Dim, &label)
        .push_right(columns.durations + DURATION, Ink::Plain, &duration(row.length))
        .move_to(columns.bars + offset)
        .push(ink, &"█".repeat(bar))
        .end();
    let below =
        |(ink, text): (Ink, String)| line().move_to(columns.tree).push(Ink::Dim, &row.below).push(ink, &text).end();
    first + &under(row, notes).into_iter().map(below).collect::<String>()
}

/// What stands below a span: notes that did not fit beside its name, its error, its events and log records.
fn under(row: &Row, notes: String) -> Vec<(Ink, String)> {
    let notes = (!notes.is_empty()).then_some((Ink::Dim, notes));
    let error = row.error.iter().map(|error| (Ink::Error, format!("✗ {error}")));
    let remarks = row.remarks.iter().map(|remark| (Ink::Dim, format!("· {remark}")));
    notes.into_iter().chain(error).chain(remarks).collect()
}

/// Where the bar of a span begins and how long it is, in columns: at least one, and never outside.
fn bar(row: &Row, total: Duration, columns: usize) -> (usize, usize) {
    if total.is_zero() {
        return (0, 1);
    }
    let column = |time: Duration| time.as_secs_f64() / total.as_secs_f64() * columns as f64;
    let begin = (column(row.offset) as usize).min(columns - 1);
    let end = (column(row.offset + row.length).round() as usize).clamp(begin + 1, columns);
    (begin, end - begin)
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

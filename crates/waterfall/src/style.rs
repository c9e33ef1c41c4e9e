//! Ink, and lines of text that know how wide they are.

use std::sync::{Arc, Mutex, PoisonError};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Colours of the services, in the order of their appearance: all readable on dark and on light ground, none red.
const SERVICES: [u8; 6] = [36, 33, 32, 35, 34, 96];

/// How many services are remembered at most. Further ones share a colour: anybody can make up names.
const REMEMBERED: usize = 64;

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ink {
    Bold,
    Dim,
    Error,
    Plain,
    /// The colour with this place among [`SERVICES`].
    Service(usize),
}

/// Whether there are colours, and which service has which.
#[derive(Debug)]
pub(crate) struct Style {
    color: bool,
    services: Mutex<Vec<Arc<str>>>,
}

impl Style {
    pub(crate) fn new(color: bool) -> Self {
        Self { color, services: Mutex::default() }
    }

    /// Returns the ink of a service; a new one takes the next colour.
    pub(crate) fn service(&self, name: &Arc<str>) -> Ink {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let place = services.iter().position(|known| known == name).unwrap_or(services.len());
        if place == services.len() && place < REMEMBERED {
            services.push(name.clone());
        }
        Ink::Service(place % SERVICES.len())
    }

    /// The width of the longest name, so that all pictures have the same columns.
    pub(crate) fn widest_service(&self) -> usize {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.iter().map(|name| name.width()).max().unwrap_or(0)
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if !self.color || text.is_empty() => return text.to_owned(),
            Ink::Plain => return text.to_owned(),
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Error => 31,
            Ink::Service(place) => SERVICES[place % SERVICES.len()],
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A line being written from left to right; it never grows wider than its limit.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    style: &'a Style,
    limit: usize,
    width: usize,
    text: String,
}

impl<'a> Line<'a> {
    pub(crate) fn new(style: &'a Style, limit: usize) -> Self {
        Self { style, limit, width: 0, text: String::new() }
    }

    /// Appends text, shortened with an ellipsis if it would pass the limit.
    pub(crate) fn push(mut self, ink: Ink, text: &str) -> Self {
        let room = self.limit.saturating_sub(self.width);
        let text = shortened(text, room);
        self.width += text.width();
        self.text.push_str(&self.style.paint(ink, &text));
        self
    }

    /// Appends text shortened to end before `column`.
    pub(crate) fn push_until(mut self, column: usize, ink: Ink, text: &str) -> Self {
        let limit = self.limit;
        self.limit = column.min(limit);
        self = self.push(ink, text);
        self.limit = limit;
        self
    }

    /// Appends text so that it ends just before `column`.
    pub(crate) fn push_right(self, column: usize, ink: Ink, text: &str) -> Self {
        self.move_to(column.saturating_sub(text.width())).push(ink, text)
    }

    /// Fills with spaces up to `column`.
    pub(crate) fn move_to(mut self, column: usize) -> Self {
        let spaces = column.min(self.limit).saturating_sub(self.width);
        self.text.push_str(&" ".repeat(spaces));
        self.width += spaces;
        self
    }

    /// How many columns are left before `column`, or before the limit.
    pub(crate) fn room(&self, column: usize) -> usize {
        column.min(self.limit).saturating_sub(self.width)
    }

    /// Ends the line.
    pub(crate) fn end(self) -> String {
        let mut text = self.text;
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
        text
    }
}

/// Cuts text that is wider than `room` and ends it with an ellipsis.
fn shortened(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = room.saturating_sub(1);
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        short.push(character);
    }
    if room > 0 {
        short.push('…');
    }
    short
}

/// Makes text from messages safe to print: what could move the cursor or reorder the line becomes a dot.
///
/// # Examples
///
/// ```
/// assert_eq!(throughline_waterfall::clean("a\x1b[2Jb\nc"), "a·[2Jb·c");
/// ```
pub fn clean(text: &str) -> String {
    text.chars().map(|character| if is_harmful(character) { '·' } else { character }).collect()
}

/// Says whether a character could move the cursor or reorder the line.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Ink, Line, Style, clean};

    #[test]
    fn a_line_never_passes_its_limit() {
        let style = Style::new(false);
        let line = || Line::new(&style, 10);
        assert_eq!(line().push(Ink::Plain, "0123456789").end(), "0123456789\n");
        assert_eq!(line().push(Ink::Plain, "0123456789a").end(), "012345678…\n");
        assert_eq!(line().push(Ink::Plain, "0123456789").push(Ink::Plain, "a").end(), "0123456789\n");
        assert_eq!(line().push(Ink::Plain, "ab").move_to(20).push(Ink::Plain, "c").end(), "ab\n");
    }

    #[test]
    fn wide_characters_count_twice() {
        let style = Style::new(false);
        assert_eq!(Line::new(&style, 6).push(Ink::Plain, "注文注文").end(), "注文…\n");
    }

    #[test]
    fn columns_line_up() {
        let style = Style::new(false);
        let line = Line::new(&style, 20).push_until(6, Ink::Plain, "abcdefgh").push_right(12, Ink::Plain, "42");
        assert_eq!(line.end(), "abcde…    42\n");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let style = Style::new(true);
        let line = Line::new(&style, 4).push(Ink::Error, "ab").push(Ink::Dim, "cd").push(Ink::Dim, "e");
        assert_eq!(line.end(), "\x1b[31mab\x1b[0m\x1b[2mcd\x1b[0m\n");
    }

    #[test]
    fn a_service_keeps_its_colour() {
        let style = Style::new(true);
        let (shop, stock) = (Arc::from("shop"), Arc::from("stock"));
        assert_eq!(style.service(&shop), Ink::Service(0));
        assert_eq!(style.service(&stock), Ink::Service(1));
        assert_eq!(style.service(&shop), Ink::Service(0));
    }

    #[test]
    fn made_up_services_take_no_memory() {
        let style = Style::new(true);
        for name in 0..1000 {
            style.service(&Arc::from(name.to_string()));
        }
        assert_eq!(style.services.lock().unwrap().len(), super::REMEMBERED);
        assert_eq!(style.service(&Arc::from("1")), Ink::Service(1));
    }

    #[test]
    fn a_terminal_cannot_be_steered_from_a_message() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{202e}d"), "a·[2Jb·c·d");
        assert_eq!(clean("Größe 注文"), "Größe 注文");
    }
}

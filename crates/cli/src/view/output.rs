//! Where pictures go, and how they look.

use std::env;
use std::io::{IsTerminal, stderr, stdout};

use throughline_waterfall::Screen;

use crate::arguments::View;

/// The width where nobody says one.
const DEFAULT_WIDTH: usize = 100;

/// The standard output, and the standard error for what is no trace where the output has lines of JSON.
#[derive(Debug)]
pub(super) struct Output {
    /// Where traces go.
    pub(super) traces: Screen,
    /// Where all else goes; `None` where that is the same.
    aside: Option<Screen>,
}

impl Output {
    pub(super) fn new(options: &View) -> Self {
        let colored = !options.no_color && takes_colors();
        let width = options.width.map_or_else(width, usize::from);
        let traces = Screen::new(Box::new(stdout()), colored && stdout().is_terminal(), width);
        let aside = options.json.then(|| Screen::new(Box::new(stderr()), colored && stderr().is_terminal(), width));
        Self { traces, aside }
    }

    /// Where logs of no trace and metrics go.
    pub(super) fn aside(&self) -> &Screen {
        self.aside.as_ref().unwrap_or(&self.traces)
    }
}

/// Returns the standard output as the viewer draws on it.
///
/// It is as wide as the terminal, else as `COLUMNS` says, else 100 columns. It has colours in a terminal, unless `NO_COLOR` is set or `TERM` is
/// `dumb`.
#[must_use]
pub fn screen() -> Screen {
    Screen::new(Box::new(stdout()), takes_colors() && stdout().is_terminal(), width())
}

fn takes_colors() -> bool {
    !set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn width() -> usize {
    let columns = || env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    terminal().or_else(columns).unwrap_or(DEFAULT_WIDTH)
}

/// How wide the terminal is that the output goes to.
#[cfg(unix)]
fn terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(not(unix))]
fn terminal() -> Option<usize> {
    None
}

fn set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

//! The one place that writes to the terminal.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::style::{Ink, Line, Style, clean};

/// Narrower pictures would be all ellipses.
const MIN_WIDTH: usize = 40;

/// Where pictures go, how wide they are, and which colours they have.
///
/// Pictures of one screen have the same columns, and a service keeps its colour.
///
/// # Examples
///
/// ```
/// use throughline_waterfall::Screen;
///
/// let screen = Screen::new(Box::new(std::io::stdout()), false, 100);
/// screen.write("listening\n");
/// screen.outcome()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Screen {
    pub(crate) style: Style,
    pub(crate) width: usize,
    output: Mutex<Output>,
}

struct Output {
    writer: Box<dyn Write + Send>,
    /// The first failure since the last report of one.
    failure: Option<io::Error>,
}

impl Screen {
    /// Creates one that is `width` columns wide, at least 40.
    pub fn new(writer: Box<dyn Write + Send>, color: bool, width: usize) -> Self {
        let output = Mutex::new(Output { writer, failure: None });
        Self { style: Style::new(color), width: width.max(MIN_WIDTH), output }
    }

    /// Gives a service the next colour, before it is drawn.
    pub fn introduce(&self, service: &Arc<str>) {
        self.style.service(service);
    }

    /// Returns a line that says something of a service, however long. The text is written as it is.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_waterfall::Screen;
    ///
    /// let screen = Screen::new(Box::new(Vec::new()), false, 40);
    /// assert_eq!(screen.line(&"stock".into(), "WARN 3 left"), "stock WARN 3 left\n");
    /// ```
    pub fn line(&self, service: &Arc<str>, text: &str) -> String {
        let line = Line::new(&self.style, usize::MAX).push(self.style.service(service), &clean(service));
        line.push(Ink::Plain, " ").push(Ink::Plain, text).end()
    }

    /// Writes a whole picture at once, as it is. A failure is kept for [`outcome`](Self::outcome).
    pub fn write(&self, picture: &str) {
        let mut output = self.output();
        let written = output.writer.write_all(picture.as_bytes()).and_then(|()| output.writer.flush());
        if let Err(error) = written {
            output.failure.get_or_insert(error);
        }
    }

    /// Says whether everything since the last call was written.
    ///
    /// # Errors
    ///
    /// Returns the first failure since then.
    pub fn outcome(&self) -> io::Result<()> {
        self.output().failure.take().map_or(Ok(()), Err)
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("width", &self.width).finish_non_exhaustive()
    }
}

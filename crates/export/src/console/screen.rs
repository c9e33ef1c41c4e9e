//! The one place that writes to the terminal.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::style::Style;
use crate::error::{ExportError, ExportErrorKind};

/// Narrower pictures would be all ellipses.
const MIN_WIDTH: usize = 40;

pub(super) struct Screen {
    pub(super) style: Style,
    pub(super) width: usize,
    output: Mutex<Output>,
}

struct Output {
    writer: Box<dyn Write + Send>,
    /// The first failure since the last report of one.
    failure: Option<io::Error>,
}

impl Screen {
    pub(super) fn new(writer: Box<dyn Write + Send>, color: bool, width: usize) -> Self {
        let output = Mutex::new(Output { writer, failure: None });
        Self { style: Style::new(color), width: width.max(MIN_WIDTH), output }
    }

    /// Writes a whole picture at once; a failure is kept for [`outcome`](Self::outcome).
    pub(super) fn write(&self, picture: &str) {
        let mut output = self.output();
        let written = output.writer.write_all(picture.as_bytes()).and_then(|()| output.writer.flush());
        if let Err(error) = written {
            output.failure.get_or_insert(error);
        }
    }

    /// Says whether everything since the last call was written.
    pub(super) fn outcome(&self) -> Result<(), ExportError> {
        match self.output().failure.take() {
            Some(error) => Err(ExportError::caused_by(ExportErrorKind::Write, error)),
            None => Ok(()),
        }
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

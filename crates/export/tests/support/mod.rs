//! What the test programs share.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A terminal whose text a test reads.
#[derive(Clone, Default)]
pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::Error::other("poisoned"))?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

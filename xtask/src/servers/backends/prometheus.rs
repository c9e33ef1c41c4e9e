//! Prometheus: on the path, or Debian's package in a folder.

use std::path::PathBuf;

use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{attempt, debian_program, named_program, on_path};

const VARIABLE: &str = "THROUGHLINE_PROMETHEUS_SERVER";

const HELP: &str = "\
install Prometheus, or name its program, then run the command again
  export THROUGHLINE_PROMETHEUS_SERVER=/path/to/prometheus";

/// Finds the program, or takes it out of its package.
pub(super) fn prometheus() -> Result<PathBuf, ServerError> {
    if let Some(program) = named_program(VARIABLE)? {
        return Ok(program);
    }
    let mut tried = vec![format!("{VARIABLE} is not set")];
    if let Some(program) = attempt(on_path("prometheus"), &mut tried)? {
        return Ok(program);
    }
    let debian = debian_program(&Workspace::load()?, "prometheus", "usr/bin/prometheus");
    attempt(debian, &mut tried)?.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "there is no Prometheus and none could be had")
            .with_tried(tried)
            .with_help(HELP)
    })
}

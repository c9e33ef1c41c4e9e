//! Prometheus and `promtool`: on the path, or out of Debian's package in a folder.

use std::path::PathBuf;

use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{attempt, debian_program, named_program, on_path};

const SERVER_VARIABLE: &str = "THROUGHLINE_PROMETHEUS_SERVER";
const TOOL_VARIABLE: &str = "THROUGHLINE_PROMTOOL";

const HELP: &str = "\
install Prometheus, or name its programs, then run the command again
  export THROUGHLINE_PROMETHEUS_SERVER=/path/to/prometheus
  export THROUGHLINE_PROMTOOL=/path/to/promtool";

/// Finds the server, or takes it out of its package.
pub(super) fn prometheus() -> Result<PathBuf, ServerError> {
    find(SERVER_VARIABLE, "prometheus")
}

/// Finds what checks rules and configuration, or takes it out of the package.
pub(super) fn promtool() -> Result<PathBuf, ServerError> {
    find(TOOL_VARIABLE, "promtool")
}

fn find(variable: &str, program: &str) -> Result<PathBuf, ServerError> {
    if let Some(program) = named_program(variable)? {
        return Ok(program);
    }
    let mut tried = vec![format!("{variable} is not set")];
    if let Some(program) = attempt(on_path(program), &mut tried)? {
        return Ok(program);
    }
    let debian = debian_program(&Workspace::load()?, "prometheus", &format!("usr/bin/{program}"));
    attempt(debian, &mut tried)?.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, format!("there is no {program} and none could be had"))
            .with_tried(tried)
            .with_help(HELP)
    })
}

//! The server program: found, or installed into the project's tool folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{ANSWER_WITHIN, INSTALL_WITHIN, attempt, debian_program, into_folder};
use super::super::set_variable;

/// The variable that names a server program to use, and gives tests the path of the one that was started.
pub const PROGRAM_VARIABLE: &str = "THROUGHLINE_NATS_SERVER";

const PROGRAM: &str = "nats-server";
/// Where Debian's package has it.
const DEBIAN_PATH: &str = "usr/sbin/nats-server";
const MODULE: &str = "github.com/nats-io/nats-server/v2";
/// The version that is tested; the newest one is the second choice.
const CURRENT: &str = "v2.15.2";
/// The last of the oldest line that is tested.
const OLDEST: &str = "v2.9.25";
const OLDEST_LINE: &str = "2.9.";

/// The current server; an old one only where no other can be had.
pub(super) fn current(workspace: &Workspace, tried: &mut Vec<String>) -> Result<Option<PathBuf>, ServerError> {
    if let Some(program) = set_variable(PROGRAM_VARIABLE).map(PathBuf::from) {
        let version = version(&program)?;
        eprintln!("xtask: using the NATS server {version} that {PROGRAM_VARIABLE} names");
        return Ok(Some(program));
    }
    let on_path = on_path(tried);
    if let Some((program, version)) = &on_path
        && !version.starts_with(OLDEST_LINE)
    {
        return Ok(Some(program.clone()));
    }
    for version in [CURRENT, "latest"] {
        if let Some(program) = attempt(go(workspace, version), tried)? {
            return Ok(Some(program));
        }
    }
    if let Some((program, version)) = on_path {
        eprintln!("xtask: no newer NATS server than the {version} on the path can be had");
        return Ok(Some(program));
    }
    attempt(debian_program(workspace, PROGRAM, DEBIAN_PATH), tried)
}

/// A server of the oldest line that is tested.
pub(super) fn version_2_9(workspace: &Workspace, tried: &mut Vec<String>) -> Result<Option<PathBuf>, ServerError> {
    if let Some((program, version)) = on_path(tried)
        && version.starts_with(OLDEST_LINE)
    {
        return Ok(Some(program));
    }
    if let Some(program) = attempt(debian_program(workspace, PROGRAM, DEBIAN_PATH), tried)? {
        let version = version(&program)?;
        if version.starts_with(OLDEST_LINE) {
            return Ok(Some(program));
        }
        tried.push(format!("apt-get: the package has {version}"));
    }
    attempt(go(workspace, OLDEST), tried)
}

fn on_path(tried: &mut Vec<String>) -> Option<(PathBuf, String)> {
    let Some(program) = tools::find_on_path(PROGRAM) else {
        tried.push(format!("`{PROGRAM}` is not on the path"));
        return None;
    };
    match version(&program) {
        Ok(version) => Some((program, version)),
        Err(error) => {
            tried.push(error.reason());
            None
        }
    }
}

/// Builds a version with Go, unless it is in the tool folder already.
fn go(workspace: &Workspace, version: &str) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join(format!("{PROGRAM}-{version}"));
    let program = folder.join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX));
    if program.is_file() {
        return Ok(program);
    }
    let Some(go) = tools::find_on_path("go") else {
        return Err(ServerError::new(ServerErrorKind::Unavailable, "go install: `go` is not on the path"));
    };
    eprintln!("xtask: installing {PROGRAM} {version} with `go install` into {} (a minute or two)", folder.display());
    into_folder(&folder, |partial| {
        let mut command = Command::new(go);
        command
            .args(["install", "-trimpath", "-ldflags", "-s -w"])
            .arg(format!("{MODULE}@{version}"))
            .env("GOBIN", partial);
        Ok(tools::run(&mut command, INSTALL_WITHIN)?)
    })?;
    Ok(program)
}

fn version(program: &Path) -> Result<String, ServerError> {
    let said = tools::output(Command::new(program).arg("--version"), ANSWER_WITHIN)?;
    parse_version(&said).map(str::to_owned).ok_or_else(|| {
        ServerError::new(
            ServerErrorKind::Unavailable,
            format!("{} is not a NATS server: it says `{said}`", program.display()),
        )
    })
}

fn parse_version(said: &str) -> Option<&str> {
    let version = said.trim().strip_prefix("nats-server:")?.trim();
    Some(version.strip_prefix('v').unwrap_or(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_program_says() {
        assert_eq!(parse_version("nats-server: v2.15.2\n"), Some("2.15.2"));
        assert_eq!(parse_version("nats-server: 2.9.10"), Some("2.9.10"));
        assert_eq!(parse_version("gnatsd 1.0"), None);
    }
}

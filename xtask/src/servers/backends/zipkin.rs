//! Zipkin: one file for Java, fetched with Maven.

use std::path::PathBuf;
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{INSTALL_WITHIN, attempt, into_folder, named_program};
use super::super::java;

const VARIABLE: &str = "THROUGHLINE_ZIPKIN_SERVER";
const VERSION: &str = "3.5.1";

const HELP: &str = "\
install Java 17 and Maven, or name the file, then run the command again
  export THROUGHLINE_ZIPKIN_SERVER=/path/to/zipkin-server-exec.jar
or name a Zipkin that runs
  export THROUGHLINE_ZIPKIN_URL=http://127.0.0.1:9411";

/// Finds the file, or fetches it. Java is there too, then.
pub(super) fn zipkin() -> Result<PathBuf, ServerError> {
    let mut tried = Vec::new();
    let java = java::java(&mut tried)?;
    if let Some(file) = named_program(VARIABLE)? {
        return Ok(file);
    }
    tried.push(format!("{VARIABLE} is not set"));
    let file = if java.is_some() { attempt(maven(&Workspace::load()?), &mut tried)? } else { None };
    file.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "there is no Zipkin and none could be had")
            .with_tried(tried)
            .with_help(HELP)
    })
}

/// Fetches the server, unless it is in the tool folder already.
fn maven(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join(format!("zipkin-{VERSION}"));
    let file = folder.join(format!("zipkin-server-{VERSION}-exec.jar"));
    if file.is_file() {
        return Ok(file);
    }
    let maven = java::maven()?;
    eprintln!("xtask: fetching Zipkin {VERSION} with Maven into {} (130 MB)", folder.display());
    into_folder(&folder, |partial| {
        let mut output = std::ffi::OsString::from("-DoutputDirectory=");
        output.push(partial);
        let mut command = Command::new(maven);
        command
            .args(["--quiet", "--batch-mode", "dependency:copy"])
            .arg(format!("-Dartifact=io.zipkin:zipkin-server:{VERSION}:jar:exec"))
            .arg(output);
        Ok(tools::run(command.current_dir(partial), INSTALL_WITHIN)?)
    })?;
    Ok(file)
}

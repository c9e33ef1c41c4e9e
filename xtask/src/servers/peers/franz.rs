//! Go's franz-go with its plug-in kotel: a program that is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{INSTALL_WITHIN, attempt, has_files, into_folder, named_program, on_path, write_files};

/// The variable that names the program.
pub(super) const VARIABLE: &str = "THROUGHLINE_FRANZ";

const FILES: [(&str, &str); 3] = [
    ("main.go", include_str!("../../../../tests/interop/franz/main.go")),
    ("go.mod", include_str!("../../../../tests/interop/franz/go.mod")),
    ("go.sum", include_str!("../../../../tests/interop/franz/go.sum")),
];

const HELP: &str = "install Go 1.25 or later, then run the command again";

/// Builds the program, unless that is done already or the user names one.
pub(super) fn program() -> Result<PathBuf, ServerError> {
    if let Some(program) = named_program(VARIABLE)? {
        return Ok(program);
    }
    let mut tried = Vec::new();
    attempt(built(&Workspace::load()?), &mut tried)?.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "the program with franz-go could not be built")
            .with_tried(tried)
            .with_help(HELP)
    })
}

fn built(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join("franz");
    if !has_files(&folder, &FILES)? {
        let go = on_path("go")?;
        eprintln!("xtask: building a program with franz-go with `go build` into {}", folder.display());
        into_folder(&folder, |partial| build(&go, partial))?;
    }
    Ok(folder.join(format!("franz{}", std::env::consts::EXE_SUFFIX)))
}

/// With the options of the Collector: what both are made of is compiled once.
fn build(go: &Path, folder: &Path) -> Result<(), ServerError> {
    write_files(folder, &FILES)?;
    let mut command = Command::new(go);
    command.args(["build", "-trimpath", "-buildvcs=false", "-gcflags", "all=-N -l", "-ldflags", "-s -w"]);
    command.args(["-o", ".", "."]).env("CGO_ENABLED", "0").current_dir(folder);
    Ok(tools::run(&mut command, INSTALL_WITHIN)?)
}

//! Node with amqplib and its official instrumentation.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{
    INSTALL_WITHIN, apt_get, attempt, has_files, into_folder, named_folder, on_path, write_files,
};

/// The variable that names the folder with the modules.
pub(super) const VARIABLE: &str = "THROUGHLINE_AMQPLIB_MODULES";

const FILES: [(&str, &str); 2] = [
    ("package.json", include_str!("../../../../tests/interop/node/package.json")),
    ("package-lock.json", include_str!("../../../../tests/interop/node/package-lock.json")),
];

/// Debian has npm in a package of its own, which brings Node.
const DEBIAN_PACKAGE: &str = "npm";

const HELP: &str = "\
install Node 20 or later with npm, then run the command again
  sudo apt-get install npm";

/// Finds the folder with the modules, or fills it. Node is there too, then; a folder that the user names is taken as it is.
pub(super) fn modules() -> Result<PathBuf, ServerError> {
    if let Some(folder) = named_folder(VARIABLE)? {
        return Ok(folder);
    }
    let mut tried = Vec::new();
    attempt(installed(&Workspace::load()?), &mut tried)?.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "there is no Node with amqplib and none could be had")
            .with_tried(tried)
            .with_help(HELP)
    })
}

fn installed(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join("amqplib");
    if tools::find_on_path("npm").is_none() {
        apt_get(DEBIAN_PACKAGE)?;
    }
    let npm = on_path("npm")?;
    if !has_files(&folder, &FILES)? {
        eprintln!("xtask: installing amqplib with `npm ci` into {} (30 MB)", folder.display());
        into_folder(&folder, |partial| install(&npm, partial))?;
    }
    Ok(folder.join("node_modules"))
}

fn install(npm: &Path, folder: &Path) -> Result<(), ServerError> {
    write_files(folder, &FILES)?;
    let mut command = Command::new(npm);
    command.args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder);
    Ok(tools::run(&mut command, INSTALL_WITHIN)?)
}

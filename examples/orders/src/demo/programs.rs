//! The programs of the services.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Returns the folder of the programs `billing`, `warehouse` and `storefront`: that of this program.
///
/// Where cargo runs this program, it builds the others first, with the same profile.
///
/// # Errors
///
/// Fails when they cannot be built.
pub fn folder() -> Result<PathBuf, ProgramsError> {
    let this = env::current_exe()?;
    let folder = this.parent().map(Path::to_owned).unwrap_or_default();
    let Some(cargo) = env::var_os("CARGO") else { return Ok(folder) };
    let profile = match folder.file_name() {
        Some(name) if name != "debug" => name.to_owned(),
        _ => "dev".into(),
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--bins", "--profile"]).arg(profile);
    command.arg("--target-dir").arg(folder.parent().unwrap_or(&folder));
    match command.status()? {
        status if status.success() => Ok(folder),
        status => Err(ProgramsError::Failed(status)),
    }
}

/// Programs that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// Cargo failed, and said why.
    #[error("the services cannot be built: cargo ended with {0}")]
    Failed(ExitStatus),
    /// Cargo cannot be run.
    #[error("the services cannot be built")]
    NotRun(#[from] io::Error),
}

//! A Python with Kafka's client for it, for the tests of records that are not ours: found, or made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{attempt, into_folder};
use super::super::set_variable;
use super::install::{ANSWER_WITHIN, INSTALL_WITHIN, apt_get, on_path, unavailable};

/// The variable that names a Python program which has the package, and gives tests the one that is used.
pub const PYTHON_VARIABLE: &str = "THROUGHLINE_KAFKA_PYTHON";

const PACKAGE: &str = "confluent-kafka";
const VERSION: &str = "2.16.1";

/// Debian has the module that makes environments in a package of its own.
const DEBIAN_PACKAGES: [&str; 2] = ["python3", "python3-venv"];

const HELP: &str = "\
install Python 3 with its module venv, then run the command again
  sudo apt-get install python3 python3-venv
or name a Python that has the package
  python3 -m venv venv && venv/bin/python -m pip install confluent-kafka
  export THROUGHLINE_KAFKA_PYTHON=$PWD/venv/bin/python";

/// The Python that [`PYTHON_VARIABLE`] names, else that of an environment in the tool folder.
pub(super) fn python() -> Result<PathBuf, ServerError> {
    if let Some(python) = set_variable(PYTHON_VARIABLE).map(PathBuf::from) {
        return match answers(&python) {
            Ok(()) => Ok(python),
            Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
            Err(error) => Err(wrong_variable(&error)),
        };
    }
    let mut tried = vec![format!("{PYTHON_VARIABLE} is not set")];
    attempt(environment(&Workspace::load()?), &mut tried)?.ok_or_else(|| {
        ServerError::new(
            ServerErrorKind::Unavailable,
            format!("there is no Python with {PACKAGE} and none could be made"),
        )
        .with_tried(tried)
        .with_help(HELP)
    })
}

fn wrong_variable(error: &ServerError) -> ServerError {
    let text = format!("{PYTHON_VARIABLE} names no Python that has {PACKAGE}: {}", error.reason());
    ServerError::new(ServerErrorKind::Configuration, text).with_help(HELP)
}

/// Makes an environment with the package, unless it is in the tool folder already.
fn environment(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join(format!("{PACKAGE}-{VERSION}"));
    let python = program(&folder);
    if folder.is_dir() {
        match answers(&python) {
            Ok(()) => return Ok(python),
            Err(error) if error.kind() == ServerErrorKind::Interrupted => return Err(error),
            // The Python that it was made from is gone.
            Err(_) => fs::remove_dir_all(&folder)?,
        }
    }
    let base = base()?;
    eprintln!("xtask: installing {PACKAGE} {VERSION} with `pip` into {} (40 MB)", folder.display());
    into_folder(&folder, |partial| {
        tools::run(Command::new(base).args(["-m", "venv"]).arg(partial), INSTALL_WITHIN)?;
        // Run by its Python: the scripts beside it name the folder, which is renamed.
        let mut pip = Command::new(program(partial));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        tools::run(pip.arg(format!("{PACKAGE}=={VERSION}")), INSTALL_WITHIN)?;
        answers(&program(partial))
    })?;
    Ok(python)
}

/// A Python that can make environments.
fn base() -> Result<PathBuf, ServerError> {
    match able() {
        Err(error) if error.kind() != ServerErrorKind::Interrupted => {
            let installed = DEBIAN_PACKAGES.into_iter().try_for_each(apt_get);
            installed.map_err(|second| both(&error, second)).and_then(|()| able())
        }
        result => result,
    }
}

fn able() -> Result<PathBuf, ServerError> {
    let python = on_path("python3")?;
    tools::output(Command::new(&python).args(["-c", "import ensurepip, venv"]), ANSWER_WITHIN)?;
    Ok(python)
}

/// Both reasons: without the first one the second tells nothing.
fn both(first: &ServerError, second: ServerError) -> ServerError {
    match second.kind() {
        ServerErrorKind::Interrupted => second,
        _ => unavailable(format!("{}; {}", first.reason(), second.reason())),
    }
}

/// Whether it is a Python that has the package.
fn answers(python: &Path) -> Result<(), ServerError> {
    tools::output(Command::new(python).args(["-c", "import confluent_kafka"]), ANSWER_WITHIN)?;
    Ok(())
}

fn program(environment: &Path) -> PathBuf {
    environment.join("bin").join("python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_python_is_refused() {
        let error = answers(Path::new("no-such-python")).unwrap_err();
        let error = wrong_variable(&error);
        assert_eq!(error.kind(), ServerErrorKind::Configuration);
        assert!(error.reason().contains("no-such-python") && error.to_string().contains("venv"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_has_not_the_package_is_refused() {
        // Fails whatever it is asked, as a Python without the package does.
        assert_eq!(answers(Path::new("false")).unwrap_err().kind(), ServerErrorKind::Unavailable);
    }

    #[test]
    fn why_there_is_no_python_and_why_none_is_installed_are_both_said() {
        let both = both(&unavailable("no python3"), unavailable("not root"));
        assert_eq!(both.reason(), "no python3; not root");
        let interrupted = super::both(&unavailable("no python3"), ServerError::interrupted());
        assert_eq!(interrupted.kind(), ServerErrorKind::Interrupted);
    }
}

//! A Python with a client of a broker, for the tests of messages that are not ours: found, or made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::error::{ServerError, ServerErrorKind};
use super::install::{
    ANSWER_WITHIN, INSTALL_WITHIN, apt_get, attempt, has_files, into_folder, on_path, unavailable, write_files,
};
use super::set_variable;

/// Debian has the module that makes environments in a package of its own.
const DEBIAN_PACKAGES: [&str; 2] = ["python3", "python3-venv"];

/// The file of an environment that says what it has.
const REQUIREMENTS: &str = "requirements.txt";

/// A client that Python's package index has.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// What an environment has, each with its version, for `pip`.
    pub(super) requirements: &'static str,
    /// What a program imports.
    pub(super) module: &'static str,
    /// What people write behind `pip install`.
    pub(super) install: &'static str,
    /// How much an environment with it takes, for people.
    pub(super) size: &'static str,
    /// The variable that names a Python which has it, and gives tests the one that is used.
    pub(super) variable: &'static str,
}

impl Package {
    /// The Python that the variable names, else that of an environment in the tool folder.
    pub(super) fn python(&self) -> Result<PathBuf, ServerError> {
        if let Some(python) = set_variable(self.variable).map(PathBuf::from) {
            return match self.answers(&python) {
                Ok(()) => Ok(python),
                Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
                Err(error) => Err(self.wrong_variable(&error)),
            };
        }
        let mut tried = vec![format!("{} is not set", self.variable)];
        attempt(self.environment(&Workspace::load()?), &mut tried)?.ok_or_else(|| {
            let text = format!("there is no Python with {} and none could be made", self.name);
            ServerError::new(ServerErrorKind::Unavailable, text).with_tried(tried).with_help(self.help())
        })
    }

    fn help(&self) -> String {
        let Self { install, variable, .. } = self;
        format!(
            "install Python 3 with its module venv, then run the command again\n  \
             sudo apt-get install python3 python3-venv\n\
             or name a Python that has the package\n  \
             python3 -m venv venv && venv/bin/python -m pip install {install}\n  \
             export {variable}=$PWD/venv/bin/python"
        )
    }

    fn wrong_variable(&self, error: &ServerError) -> ServerError {
        let text = format!("{} names no Python that has {}: {}", self.variable, self.name, error.reason());
        ServerError::new(ServerErrorKind::Configuration, text).with_help(self.help())
    }

    /// Makes an environment with the package, unless it is in the tool folder already.
    fn environment(&self, workspace: &Workspace) -> Result<PathBuf, ServerError> {
        let Self { name, version, requirements, size, .. } = self;
        let folder = workspace.tools().join(format!("{name}-{version}"));
        let python = program(&folder);
        let files = [(REQUIREMENTS, *requirements)];
        if has_files(&folder, &files)? {
            match self.answers(&python) {
                Ok(()) => return Ok(python),
                Err(error) if error.kind() == ServerErrorKind::Interrupted => return Err(error),
                // The Python that it was made from is gone.
                Err(_) => fs::remove_dir_all(&folder)?,
            }
        }
        let base = base()?;
        eprintln!("xtask: installing {name} {version} with `pip` into {} ({size})", folder.display());
        into_folder(&folder, |partial| {
            tools::run(Command::new(base).args(["-m", "venv"]).arg(partial), INSTALL_WITHIN)?;
            write_files(partial, &files)?;
            // Run by its Python: the scripts beside it name the folder, which is renamed.
            let mut pip = Command::new(program(partial));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
            tools::run(pip.arg(partial.join(REQUIREMENTS)), INSTALL_WITHIN)?;
            self.answers(&program(partial))
        })?;
        Ok(python)
    }

    /// Whether it is a Python that has the package.
    fn answers(&self, python: &Path) -> Result<(), ServerError> {
        let import = format!("import {}", self.module);
        tools::output(Command::new(python).args(["-c", import.as_str()]), ANSWER_WITHIN)?;
        Ok(())
    }
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

fn program(environment: &Path) -> PathBuf {
    environment.join("bin").join("python")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: Package = Package {
        name: "their-client",
        version: "1.0.0",
        requirements: "their-client==1.0.0",
        module: "their_client",
        install: "their-client",
        size: "1 MB",
        variable: "THEIR_PYTHON",
    };

    #[test]
    fn a_program_that_is_no_python_is_refused() {
        let error = PACKAGE.answers(Path::new("no-such-python")).unwrap_err();
        let error = PACKAGE.wrong_variable(&error);
        assert_eq!(error.kind(), ServerErrorKind::Configuration);
        assert!(
            error.reason().contains("no-such-python") && error.to_string().contains("pip install their-client"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_has_not_the_package_is_refused() {
        // Fails whatever it is asked, as a Python without the package does.
        assert_eq!(PACKAGE.answers(Path::new("false")).unwrap_err().kind(), ServerErrorKind::Unavailable);
    }

    #[test]
    fn why_there_is_no_python_and_why_none_is_installed_are_both_said() {
        let both = both(&unavailable("no python3"), unavailable("not root"));
        assert_eq!(both.reason(), "no python3; not root");
        let interrupted = super::both(&unavailable("no python3"), ServerError::interrupted());
        assert_eq!(interrupted.kind(), ServerErrorKind::Interrupted);
    }
}

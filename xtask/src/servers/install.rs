//! What every way to install a server has in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tools;
use crate::workspace::Workspace;

use super::error::{ServerError, ServerErrorKind};
use super::set_variable;

pub(super) const INSTALL_WITHIN: Duration = Duration::from_secs(900);
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// One way to install; a failure is noted and the next way is tried, except after Ctrl-C.
pub(super) fn attempt(
    result: Result<PathBuf, ServerError>,
    tried: &mut Vec<String>,
) -> Result<Option<PathBuf>, ServerError> {
    match result {
        Ok(program) => Ok(Some(program)),
        Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
        Err(error) => {
            let reason = error.reason();
            if !tried.contains(&reason) {
                tried.push(reason);
            }
            Ok(None)
        }
    }
}

/// Fills a folder under another name and renames it: what was interrupted is never taken for complete.
pub(super) fn into_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let mut partial = folder.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    fs::create_dir_all(&partial)?;
    let result = fill(&partial).and_then(|()| match fs::rename(&partial, folder) {
        // Another run of this program was faster.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => Ok(renamed?),
    });
    let _ = fs::remove_dir_all(&partial);
    result
}

/// Whether a folder was made from exactly these files. One that was not is removed.
pub(super) fn has_files(folder: &Path, files: &[(&str, &str)]) -> Result<bool, ServerError> {
    let has = |(name, text): &(&str, &str)| fs::read_to_string(folder.join(name)).is_ok_and(|there| there == *text);
    let has_all = files.iter().all(has);
    if !has_all && folder.is_dir() {
        fs::remove_dir_all(folder)?;
    }
    Ok(has_all)
}

/// Writes the files that something is made from.
pub(super) fn write_files(folder: &Path, files: &[(&str, &str)]) -> Result<(), ServerError> {
    files.iter().try_for_each(|(name, text)| Ok(fs::write(folder.join(name), text)?))
}

/// Installs a package of Debian. Only root can.
pub(super) fn apt_get(package: &str) -> Result<(), ServerError> {
    if tools::find_on_path("apt-get").is_none() {
        return Err(unavailable("apt-get: not a Debian machine"));
    }
    if tools::output(Command::new("id").arg("-u"), ANSWER_WITHIN)? != "0" {
        return Err(unavailable(format!("apt-get: only root can install `{package}`")));
    }
    eprintln!("xtask: installing {package} with `apt-get install`");
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-qq", "--yes", "--no-install-recommends", package]);
        tools::output(command.env("DEBIAN_FRONTEND", "noninteractive"), INSTALL_WITHIN)
    };
    if let Err(error) = install().map_err(ServerError::from) {
        if error.kind() == ServerErrorKind::Interrupted {
            return Err(error);
        }
        eprintln!("xtask: reading the package lists with `apt-get update`");
        tools::output(Command::new("apt-get").args(["update", "-qq"]), INSTALL_WITHIN)?;
        install()?;
    }
    Ok(())
}

/// A program out of Debian's package, taken out of it unless it is in the tool folder already. The package itself is not
/// installed: that would add a service and a user to the machine. `path` is where the package has it.
pub(super) fn debian_program(workspace: &Workspace, package: &str, path: &str) -> Result<PathBuf, ServerError> {
    let folder = workspace.tools().join(format!("{package}-debian"));
    let program = folder.join(path);
    if program.is_file() {
        return Ok(program);
    }
    if tools::find_on_path("apt-get").is_none() || tools::find_on_path("dpkg-deb").is_none() {
        return Err(unavailable("apt-get: not a Debian machine"));
    }
    eprintln!("xtask: fetching {package} from Debian's packages with `apt-get download` into {}", folder.display());
    into_folder(&folder, |partial| unpack_package(package, partial))?;
    Ok(program)
}

fn unpack_package(package: &str, folder: &Path) -> Result<(), ServerError> {
    let download = || {
        tools::output(Command::new("apt-get").args(["download", "-qq", package]).current_dir(folder), INSTALL_WITHIN)
    };
    if let Err(error) = download().map_err(ServerError::from) {
        if error.kind() == ServerErrorKind::Interrupted {
            return Err(error);
        }
        eprintln!("xtask: reading the package lists with `apt-get update`");
        tools::output(Command::new("apt-get").args(["update", "-qq"]), INSTALL_WITHIN)?;
        download()?;
    }
    let file = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"));
    let Some(file) = file else {
        return Err(unavailable("apt-get: no package came"));
    };
    tools::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(folder), INSTALL_WITHIN)?;
    Ok(fs::remove_file(file)?)
}

/// The file that the user named; one that is not there is an error.
pub(super) fn named_program(variable: &str) -> Result<Option<PathBuf>, ServerError> {
    named(variable, |path| if path.is_file() { Ok(()) } else { Err("no program") })
}

/// The folder that the user named; one that is not there is an error.
pub(super) fn named_folder(variable: &str) -> Result<Option<PathBuf>, ServerError> {
    named(variable, |path| if path.is_dir() { Ok(()) } else { Err("no folder") })
}

fn named(variable: &str, check: fn(&Path) -> Result<(), &'static str>) -> Result<Option<PathBuf>, ServerError> {
    let Some(path) = set_variable(variable).map(PathBuf::from) else { return Ok(None) };
    match check(&path) {
        Ok(()) => Ok(Some(path)),
        Err(what) => {
            let text = format!("{variable} names {what}: {}", path.display());
            Err(ServerError::new(ServerErrorKind::Configuration, text))
        }
    }
}

pub(super) fn on_path(program: &str) -> Result<PathBuf, ServerError> {
    tools::find_on_path(program).ok_or_else(|| unavailable(format!("`{program}` is not on the path")))
}

pub(super) fn unavailable(text: impl Into<String>) -> ServerError {
    ServerError::new(ServerErrorKind::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_install_leaves_nothing() {
        let parent = std::env::temp_dir().join(format!("xtask-install-{}", std::process::id()));
        let folder = parent.join("server-v1.2");
        into_folder(&folder, |_| Err(ServerError::interrupted())).unwrap_err();
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
        into_folder(&folder, |partial| Ok(fs::write(partial.join("program"), "")?)).unwrap();
        assert!(folder.join("program").is_file());
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_program_that_is_named_has_to_be_there() {
        // Cargo names itself to the tests it runs; the path is a list of folders.
        assert!(named_program("CARGO").unwrap().is_some());
        assert!(named_program("THROUGHLINE_NO_SUCH_VARIABLE").unwrap().is_none());
        let error = named_program("PATH").unwrap_err();
        assert_eq!(error.kind(), ServerErrorKind::Configuration);
        assert!(error.to_string().starts_with("PATH names no program"), "{error}");
    }

    #[test]
    fn a_failed_way_is_noted_and_an_interrupt_ends_the_search() {
        let mut tried = Vec::new();
        let failed = Err(ServerError::new(ServerErrorKind::Unavailable, "no go"));
        assert!(attempt(failed, &mut tried).unwrap().is_none());
        assert_eq!(tried, ["no go"]);
        assert!(attempt(Err(ServerError::interrupted()), &mut tried).is_err());
    }
}

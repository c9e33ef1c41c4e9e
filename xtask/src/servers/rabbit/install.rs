//! The server: found, or unpacked from Debian's packages into the project's tool folder.
//!
//! The packages of another release than the machine's need another C library, so they are not installed: apt fetches them
//! with settings and lists of its own, and their files go into a folder that the server runs in with `chroot`. Nothing
//! of the system changes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{ANSWER_WITHIN, INSTALL_WITHIN, attempt, into_folder, unavailable};
use super::super::set_variable;
use super::Version;

/// The variable that names a program which runs a server of one's own, and gives tests the path of the one that was
/// started: `PROGRAM DATA PORT rabbitmq-server`, see `run.sh` beside this file.
pub const PROGRAM_VARIABLE: &str = "THROUGHLINE_RABBIT_SERVER";

/// What the packages are unpacked for: the server, and what its scripts call.
const PACKAGES: [&str; 8] = ["rabbitmq-server", "bash", "coreutils", "sed", "grep", "gawk", "procps", "hostname"];
/// What runs the server in the folder.
const RUN: &str = include_str!("run.sh");
const RUN_NAME: &str = "run.sh";
/// Where Debian and Ubuntu have the key of Debian's packages.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The machine's own sources, which may name a mirror.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
/// Kept in the root folder as they are on a system.
const LINKS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The program that [`PROGRAM_VARIABLE`] names.
pub(super) fn named() -> Result<Option<PathBuf>, ServerError> {
    let Some(program) = set_variable(PROGRAM_VARIABLE).map(PathBuf::from) else {
        return Ok(None);
    };
    if !program.is_file() {
        let text = format!("{PROGRAM_VARIABLE} names no program: there is no {}", program.display());
        return Err(ServerError::new(ServerErrorKind::Configuration, text));
    }
    eprintln!("xtask: using the RabbitMQ server that {PROGRAM_VARIABLE} names");
    Ok(Some(program))
}

/// The program that runs Debian's server of this version, or none and the reason in `tried`.
pub(super) fn debian(
    version: &Version,
    workspace: &Workspace,
    tried: &mut Vec<String>,
) -> Result<Option<PathBuf>, ServerError> {
    let folder = workspace.tools().join(format!("rabbitmq-server-debian-{}", version.suite));
    attempt(installed(version, &folder), tried)
}

/// Unpacks the server, unless it is in the tool folder already.
fn installed(version: &Version, folder: &Path) -> Result<PathBuf, ServerError> {
    for program in ["apt-get", "dpkg-deb", "unshare"] {
        if tools::find_on_path(program).is_none() {
            return Err(unavailable(format!("{program}: not a machine with Debian's tools")));
        }
    }
    namespaces()?;
    if !folder.is_dir() {
        eprintln!(
            "xtask: fetching RabbitMQ {} from Debian's packages with `apt-get` into {} (70 MB, unpacked 240 MB)",
            version.line,
            folder.display()
        );
        into_folder(folder, |partial| fill(version, partial))?;
    }
    let program = folder.join(RUN_NAME);
    if fs::read_to_string(&program).ok().as_deref() != Some(RUN) {
        // Put there in one step: a server may be starting with the one before.
        let new = folder.join(format!("{RUN_NAME}.{}", std::process::id()));
        fs::write(&new, RUN)?;
        run(Command::new("chmod").arg("755").arg(&new))?;
        fs::rename(&new, &program)?;
    }
    Ok(program)
}

/// Whether this user may have namespaces, as `run.sh` makes them.
fn namespaces() -> Result<(), ServerError> {
    let mut unshare = Command::new("unshare");
    if tools::output(Command::new("id").arg("-u"), ANSWER_WITHIN)? != "0" {
        unshare.arg("--map-root-user");
    }
    tools::output(unshare.args(["--mount", "--pid", "--fork", "--kill-child", "true"]), ANSWER_WITHIN)?;
    Ok(())
}

fn fill(version: &Version, folder: &Path) -> Result<(), ServerError> {
    let (apt, root) = (folder.join("apt"), folder.join("root"));
    fs::create_dir(&root)?;
    for package in fetch(version.suite, &apt)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root))?;
    }
    if !has(version, &root) {
        return Err(unavailable(format!("apt-get: the packages of {} have no {}", version.suite, version.line)));
    }
    complete(&root)?;
    Ok(fs::remove_dir_all(apt)?)
}

/// Fetches the packages with all that they depend on, as for a machine that has nothing.
fn fetch(suite: &str, folder: &Path) -> Result<Vec<PathBuf>, ServerError> {
    let (sources, archives) = (folder.join("sources"), folder.join("cache/archives"));
    for folder in [&sources, &folder.join("lists/partial"), &archives.join("partial")] {
        fs::create_dir_all(folder)?;
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let files = SOURCES.map(|file| (file, fs::read_to_string(file).unwrap_or_default()));
    for (name, text) in sources_of(suite, codename(&release), &files) {
        fs::write(sources.join(name), text)?;
    }
    fs::write(folder.join("status"), "")?;
    run(apt_get(folder).arg("update"))?;
    let mut install = apt_get(folder);
    run(install.args(["--yes", "--no-install-recommends", "--download-only", "install"]).args(PACKAGES))?;
    let files = fs::read_dir(archives)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, ServerError>>()?;
    Ok(files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

/// With nothing of the machine but how it reaches the network.
fn apt_get(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(["-o", "Dir::Etc::sourcelist=/dev/null", "-o", "APT::Sandbox::User=root"]);
    for (option, name) in [
        ("Dir::Etc::sourceparts=", "sources"),
        ("Dir::State::lists=", "lists"),
        ("Dir::State::status=", "status"),
        ("Dir::Cache=", "cache"),
    ] {
        let mut value = OsString::from(option);
        value.push(folder.join(name));
        command.arg("-o").arg(value);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The name of this machine's release of Debian.
fn codename(release: &str) -> Option<&str> {
    let value = |key| release.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    value("VERSION_CODENAME=").filter(|_| value("ID=") == Some("debian"))
}

/// Names and texts of the files with the sources of a release: those of the machine where it is Debian too, else
/// Debian's own.
fn sources_of(suite: &str, codename: Option<&str>, machine: &[(&str, String)]) -> Vec<(String, String)> {
    let of_machine = machine.iter().filter_map(|(file, text)| {
        let text = text.replace(codename?, suite);
        let name = Path::new(file).file_name()?.to_str()?;
        text.contains(suite).then(|| (name.to_owned(), text))
    });
    let files: Vec<_> = of_machine.collect();
    if !files.is_empty() {
        return files;
    }
    let text = format!(
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    );
    vec![("debian.sources".to_owned(), text)]
}

/// Whether the packages had this version.
fn has(version: &Version, root: &Path) -> bool {
    let beginning = format!("rabbitmq_server-{}.", version.line);
    let names = fs::read_dir(root.join("usr/lib/rabbitmq/lib")).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(&beginning))
}

/// Adds what the installation of the packages would, and what `run.sh` mounts on.
fn complete(root: &Path) -> Result<(), ServerError> {
    for name in ["data", "dev", "etc", "proc", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in LINKS {
        link(&format!("usr/{name}"), &root.join(name))?;
    }
    link("bash", &root.join("bin/sh"))?;
    for device in ["null", "random", "urandom"] {
        fs::write(root.join("dev").join(device), "")?;
    }
    Ok(fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?)
}

/// Makes a link unless something is there.
fn link(to: &str, from: &Path) -> Result<(), ServerError> {
    if from.exists() { Ok(()) } else { run(Command::new("ln").args(["-s", to]).arg(from)) }
}

/// What it says is worth reading only when it fails.
fn run(command: &mut Command) -> Result<(), ServerError> {
    tools::output(command, INSTALL_WITHIN)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_debian_is_asked_for_its_mirror() {
        let machine = [
            ("/etc/apt/sources.list", String::new()),
            (
                "/etc/apt/sources.list.d/debian.sources",
                "URIs: http://mirror\nSuites: bookworm bookworm-updates\n".into(),
            ),
        ];
        let expected = ("debian.sources".to_owned(), "URIs: http://mirror\nSuites: trixie trixie-updates\n".to_owned());
        assert_eq!(sources_of("trixie", Some("bookworm"), &machine), [expected]);
    }

    #[test]
    fn another_machine_has_the_sources_of_debian() {
        let machine = [("/etc/apt/sources.list", "deb http://mirror noble main\n".to_owned())];
        for codename in [None, Some("sid")] {
            let files = sources_of("trixie", codename, &machine);
            let (name, text) = files.first().unwrap();
            assert_eq!((files.len(), name.as_str()), (1, "debian.sources"));
            assert!(
                text.contains("\nSuites: trixie\n") && text.contains("\nSigned-By: /usr/share/keyrings/"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_release_of_debian_has_a_name() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm"));
        assert_eq!(codename("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(codename("ID=debian\n"), None);
    }

    #[test]
    fn packages_of_another_version_are_not_taken() {
        let root = std::env::temp_dir().join(format!("xtask-rabbit-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8")).unwrap();
        assert!(has(&super::super::OLDEST, &root) && !has(&super::super::CURRENT, &root));
        fs::remove_dir_all(root).unwrap();
    }
}

//! Java's client, for the tests of messages that are not ours: found, or fetched.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::attempt;
use super::super::java::{self, Artifact};
use super::super::set_variable;
use super::JARS_VARIABLE;

const CLIENT: Artifact = Artifact { group: "com.rabbitmq", name: "amqp-client", version: "5.37.1" };

const HELP: &str = "\
install Java 17 and Maven, then run the command again
  sudo apt-get install default-jre-headless maven
or name a folder that has amqp-client and what it depends on
  export THROUGHLINE_RABBIT_JARS=/path/to/jars";

/// The folder that the variable names, else one in the tool folder. Java is there too, then.
pub(super) fn jars() -> Result<PathBuf, ServerError> {
    let mut tried = Vec::new();
    let java = java::java(&mut tried)?;
    let named = set_variable(JARS_VARIABLE).map(PathBuf::from);
    let found = match (java, named) {
        (None, _) => None,
        (Some(_), Some(folder)) => return if has_client(&folder) { Ok(folder) } else { Err(wrong_variable(&folder)) },
        (Some(_), None) => {
            tried.push(format!("{JARS_VARIABLE} is not set"));
            attempt(fetched(&Workspace::load()?), &mut tried)?
        }
    };
    found.ok_or_else(|| {
        let text = format!("there is no Java with {} and none could be had", CLIENT.name);
        ServerError::new(ServerErrorKind::Unavailable, text).with_tried(tried).with_help(HELP)
    })
}

/// Fetches the client and what it depends on with Maven, unless it is in the tool folder already.
fn fetched(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let Artifact { name, version, .. } = CLIENT;
    let folder = workspace.tools().join(format!("{name}-{version}"));
    if !folder.is_dir() {
        eprintln!("xtask: fetching {name} {version} with Maven into {} (4 MB)", folder.display());
        java::fetch(&folder, &[CLIENT])?;
    }
    Ok(folder.join(java::LIBRARIES))
}

fn has_client(folder: &Path) -> bool {
    let is_client = |name: &str| {
        name.strip_prefix("amqp-client-").is_some_and(|rest| rest.starts_with("5.") && rest.ends_with(".jar"))
    };
    fs::read_dir(folder).into_iter().flatten().flatten().any(|file| file.file_name().to_str().is_some_and(is_client))
}

fn wrong_variable(folder: &Path) -> ServerError {
    let text = format!("{JARS_VARIABLE} names no jars: {} has no `amqp-client-5.VERSION.jar`", folder.display());
    ServerError::new(ServerErrorKind::Configuration, text).with_help(HELP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_client_says_what_is_missing() {
        let folder = std::env::temp_dir().join(format!("xtask-jars-{}", std::process::id()));
        assert!(!has_client(&folder));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("amqp-client-5.37.1.pom"), "").unwrap();
        assert!(!has_client(&folder));
        let error = wrong_variable(&folder);
        assert_eq!(error.kind(), ServerErrorKind::Configuration);
        assert!(error.to_string().contains("amqp-client-5.VERSION.jar"), "{error}");
        fs::write(folder.join("amqp-client-5.37.1.jar"), "").unwrap();
        assert!(has_client(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }
}

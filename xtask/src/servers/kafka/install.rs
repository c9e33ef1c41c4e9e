//! Kafka's jars, and the Java that runs them: found, or installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{INSTALL_WITHIN, attempt, into_folder};
use super::super::java;
use super::super::set_variable;

/// The variable that names a folder with Kafka's jars in `libs`, and gives tests the one that was used.
pub const HOME_VARIABLE: &str = "THROUGHLINE_KAFKA_HOME";

/// The version of Kafka that is started; `compose.yaml` names it too.
pub const VERSION: &str = "4.1.1";

/// What a local server is started from.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) java: PathBuf,
    /// The folder that has the jars in `libs`.
    pub(super) home: PathBuf,
    pub(super) version: String,
}

/// Java and the jars, or none and the reason in `tried`.
pub(super) fn kafka(workspace: &Workspace, tried: &mut Vec<String>) -> Result<Option<Installed>, ServerError> {
    let Some(java) = java::java(tried)? else {
        return Ok(None);
    };
    let home = match set_variable(HOME_VARIABLE) {
        Some(home) => Some(PathBuf::from(home)),
        None => attempt(maven(workspace), tried)?,
    };
    let Some(home) = home else {
        return Ok(None);
    };
    let version = version(&home)?;
    Ok(Some(Installed { java, home, version }))
}

/// Fetches Kafka and what it depends on with Maven, unless it is in the tool folder already.
fn maven(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let home = workspace.tools().join(format!("kafka-{VERSION}"));
    if home.is_dir() {
        return Ok(home);
    }
    let maven = java::maven()?;
    eprintln!("xtask: fetching Kafka {VERSION} with Maven into {} (50 MB)", home.display());
    into_folder(&home, |partial| {
        let pom = partial.join("pom.xml");
        fs::write(&pom, project())?;
        let mut command = Command::new(maven);
        command
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(pom)
            .args(["dependency:copy-dependencies", "-DoutputDirectory=libs"]);
        Ok(tools::run(&mut command, INSTALL_WITHIN)?)
    })?;
    Ok(home)
}

/// A project for Maven that is nothing but the server and a logger that writes to standard error.
fn project() -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>throughline</groupId>
  <artifactId>kafka</artifactId>
  <version>{VERSION}</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#
    )
}

/// The version of the server whose jars are in this folder.
fn version(home: &Path) -> Result<String, ServerError> {
    let names = fs::read_dir(home.join("libs")).into_iter().flatten().flatten().map(|file| file.file_name());
    names.into_iter().find_map(|name| server_version(name.to_str()?).map(str::to_owned)).ok_or_else(|| {
        ServerError::new(
            ServerErrorKind::Configuration,
            format!("{} has no Kafka server: there is no `libs/kafka_2.13-VERSION.jar`", home.display()),
        )
    })
}

fn server_version(jar: &str) -> Option<&str> {
    let version = jar.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?;
    version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_server_is_in_the_name_of_its_jar() {
        assert_eq!(server_version("kafka_2.13-4.1.1.jar"), Some("4.1.1"));
        assert_eq!(server_version("kafka_2.13-4.1.1-sources.jar"), None);
        assert_eq!(server_version("kafka-clients-4.1.1.jar"), None);
    }

    #[test]
    fn a_folder_without_the_server_says_what_is_missing() {
        let error = version(Path::new("no-such-folder")).unwrap_err();
        assert_eq!(error.kind(), ServerErrorKind::Configuration);
        assert!(error.to_string().contains("libs/kafka_2.13-VERSION.jar"), "{error}");
    }

    #[test]
    fn the_image_of_compose_is_the_version_that_is_fetched() {
        let compose = include_str!("../../../../compose.yaml");
        assert!(compose.contains(&format!("image: apache/kafka:{VERSION}\n")));
    }
}

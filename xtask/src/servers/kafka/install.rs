//! Java and Kafka's jars: found, or installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{ANSWER_WITHIN, INSTALL_WITHIN, apt_get, attempt, into_folder, on_path, unavailable};
use super::super::set_variable;

/// The variable that names a folder with Kafka's jars in `libs`, and gives tests the one that was used.
pub const HOME_VARIABLE: &str = "THROUGHLINE_KAFKA_HOME";

/// The version of Kafka that is started; `compose.yaml` names it too.
pub const VERSION: &str = "4.1.1";

/// What Kafka 4 needs.
const OLDEST_JAVA: u32 = 17;
const JAVA_PACKAGE: &str = "default-jre-headless";
const MAVEN_PACKAGE: &str = "maven";

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
    let Some(java) = java(tried)? else {
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

fn java(tried: &mut Vec<String>) -> Result<Option<PathBuf>, ServerError> {
    if let Some(java) = attempt(java_on_path(), tried)? {
        return Ok(Some(java));
    }
    attempt(apt_get(JAVA_PACKAGE).and_then(|()| java_on_path()), tried)
}

fn java_on_path() -> Result<PathBuf, ServerError> {
    let java = on_path("java")?;
    // Java 8 does not know the option and fails.
    let said = tools::output(Command::new(&java).arg("--version"), ANSWER_WITHIN)?;
    match java_version(&said) {
        Some(OLDEST_JAVA..) => Ok(java),
        _ => {
            let first = said.lines().next().unwrap_or_default();
            Err(unavailable(format!("{} is not Java {OLDEST_JAVA} or later: it says `{first}`", java.display())))
        }
    }
}

/// Fetches Kafka and what it depends on with Maven, unless it is in the tool folder already.
fn maven(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let home = workspace.tools().join(format!("kafka-{VERSION}"));
    if home.is_dir() {
        return Ok(home);
    }
    if tools::find_on_path("mvn").is_none() {
        apt_get(MAVEN_PACKAGE)?;
    }
    let maven = on_path("mvn")?;
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

/// `openjdk 17.0.15 2025-04-15` is 17.
fn java_version(said: &str) -> Option<u32> {
    let version = said.split_whitespace().nth(1)?;
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_java_is_read_from_what_it_says() {
        for (said, expected) in [
            ("openjdk 17.0.15 2025-04-15\nOpenJDK Runtime Environment", Some(17)),
            ("openjdk 25-ea 2025-09-16", Some(25)),
            ("java 21 2023-09-19 LTS", Some(21)),
            ("something else", None),
            ("", None),
        ] {
            assert_eq!(java_version(said), expected, "{said}");
        }
    }

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

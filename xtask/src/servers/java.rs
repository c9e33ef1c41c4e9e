//! Java, and Maven, which fetches what runs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;

use super::error::ServerError;
use super::install::{ANSWER_WITHIN, INSTALL_WITHIN, apt_get, attempt, into_folder, on_path, unavailable};

/// What Kafka 4 and Zipkin 3 need.
const OLDEST_JAVA: u32 = 17;
const JAVA_PACKAGE: &str = "default-jre-headless";
const MAVEN_PACKAGE: &str = "maven";

/// Where in a folder [`fetch`] puts the jars.
pub(super) const LIBRARIES: &str = "libs";

/// A library that Maven has.
#[derive(Clone, Copy)]
pub(super) struct Artifact {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// The program, on the path or installed; or none and the reason in `tried`.
pub(super) fn java(tried: &mut Vec<String>) -> Result<Option<PathBuf>, ServerError> {
    if let Some(java) = attempt(java_on_path(), tried)? {
        return Ok(Some(java));
    }
    attempt(apt_get(JAVA_PACKAGE).and_then(|()| java_on_path()), tried)
}

/// The program, on the path or installed.
pub(super) fn maven() -> Result<PathBuf, ServerError> {
    if tools::find_on_path("mvn").is_none() {
        apt_get(MAVEN_PACKAGE)?;
    }
    on_path("mvn")
}

/// Fetches libraries, and what they depend on, with Maven into a new folder.
pub(super) fn fetch(folder: &Path, artifacts: &[Artifact]) -> Result<(), ServerError> {
    let maven = maven()?;
    into_folder(folder, |partial| {
        let pom = partial.join("pom.xml");
        fs::write(&pom, project(artifacts))?;
        let mut command = Command::new(maven);
        command
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(pom)
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={LIBRARIES}"));
        Ok(tools::run(&mut command, INSTALL_WITHIN)?)
    })
}

/// A project for Maven that is nothing but what it depends on.
fn project(artifacts: &[Artifact]) -> String {
    let dependency = |Artifact { group, name, version }: &Artifact| {
        format!(
            "
    <dependency>
      <groupId>{group}</groupId>
      <artifactId>{name}</artifactId>
      <version>{version}</version>
    </dependency>"
        )
    };
    let dependencies: String = artifacts.iter().map(dependency).collect();
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>throughline</groupId>
  <artifactId>libraries</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}
  </dependencies>
</project>
"#
    )
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

/// `openjdk 17.0.15 2025-04-15` is 17.
fn java_version(said: &str) -> Option<u32> {
    let version = said.split_whitespace().nth(1)?;
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_names_each_library() {
        let one = Artifact { group: "org.slf4j", name: "slf4j-simple", version: "1.7.36" };
        let project = project(&[one, Artifact { name: "slf4j-nop", ..one }]);
        assert_eq!(project.matches("<groupId>org.slf4j</groupId>").count(), 2, "{project}");
        assert!(project.contains("<artifactId>slf4j-nop</artifactId>\n      <version>1.7.36</version>"), "{project}");
    }

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
}

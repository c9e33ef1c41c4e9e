//! Java, and Maven, which fetches what runs on it.

use std::path::PathBuf;
use std::process::Command;

use crate::tools;

use super::error::ServerError;
use super::install::{ANSWER_WITHIN, apt_get, attempt, on_path, unavailable};

/// What Kafka 4 and Zipkin 3 need.
const OLDEST_JAVA: u32 = 17;
const JAVA_PACKAGE: &str = "default-jre-headless";
const MAVEN_PACKAGE: &str = "maven";

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

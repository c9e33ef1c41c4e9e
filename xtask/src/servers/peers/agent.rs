//! Java's client of NATS and the OpenTelemetry Java agent.

use std::path::PathBuf;

use crate::workspace::Workspace;

use super::super::error::{ServerError, ServerErrorKind};
use super::super::install::{attempt, named_folder};
use super::super::java::{self, Artifact};

/// The variable that names the folder with the jars.
pub(super) const VARIABLE: &str = "THROUGHLINE_AGENT_JARS";

/// The agent, whose version the folder is named by, and the API that it has.
const AGENT: Artifact =
    Artifact { group: "io.opentelemetry.javaagent", name: "opentelemetry-javaagent", version: "2.24.0" };
const API: Artifact = Artifact { group: "io.opentelemetry", name: "opentelemetry-api", version: "1.58.0" };
const CLIENT: Artifact = Artifact { group: "io.nats", name: "jnats", version: "2.24.1" };

const HELP: &str = "\
install Java 17 and Maven, then run the command again
  sudo apt-get install default-jre-headless maven";

/// Finds the folder with the jars, or fetches them. Java is there too, then; a folder that the user names is taken as it is.
pub(super) fn jars() -> Result<PathBuf, ServerError> {
    if let Some(folder) = named_folder(VARIABLE)? {
        return Ok(folder);
    }
    let mut tried = Vec::new();
    let found = match java::java(&mut tried)? {
        Some(_) => attempt(fetched(&Workspace::load()?), &mut tried)?,
        None => None,
    };
    found.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "there is no Java with the agent and none could be had")
            .with_tried(tried)
            .with_help(HELP)
    })
}

fn fetched(workspace: &Workspace) -> Result<PathBuf, ServerError> {
    let (agent, client) = (AGENT.version, CLIENT.version);
    let folder = workspace.tools().join(format!("jnats-{client}-agent-{agent}"));
    if !folder.is_dir() {
        eprintln!("xtask: fetching jnats {client} and the agent {agent} with Maven into {} (31 MB)", folder.display());
        java::fetch(&folder, &[AGENT, API, CLIENT])?;
    }
    Ok(folder.join(java::LIBRARIES))
}

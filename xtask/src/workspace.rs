//! What `cargo metadata` says about this workspace.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::tools::{self, ToolError};

/// The workspace that this package belongs to.
///
/// # Examples
///
/// ```
/// let workspace = xtask::workspace::Workspace::load()?;
/// assert!(workspace.packages().iter().any(|package| package.name == "xtask"));
/// # Ok::<(), xtask::workspace::WorkspaceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    packages: Vec<Package>,
}

/// One package of the workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Package {
    /// The package name.
    pub name: String,
    /// The folder that its `Cargo.toml` is in.
    pub folder: PathBuf,
    /// The names of its features, sorted; without those that need a library of the system, which the package names as
    /// `package.metadata.xtask.system-features`.
    pub features: Vec<String>,
    /// Whether it may be published.
    pub is_published: bool,
    /// The address of the repository, where the package names it.
    pub repository: Option<String>,
    /// What it builds.
    pub targets: Vec<Target>,
}

/// One thing that a package builds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The target name.
    pub name: String,
    /// Cargo's word for what it is: `lib`, `bin`, `test`, `example`, `bench`.
    pub kind: String,
    /// Whether `cargo test` builds it as a test.
    pub test: bool,
}

impl Workspace {
    /// Asks cargo for the workspace.
    ///
    /// # Errors
    ///
    /// When cargo cannot be run, or a `Cargo.toml` is wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// let workspace = xtask::workspace::Workspace::load()?;
    /// assert!(workspace.root().join("Cargo.toml").is_file());
    /// # Ok::<(), xtask::workspace::WorkspaceError>(())
    /// ```
    pub fn load() -> Result<Self, WorkspaceError> {
        // The folder that cargo names at run time: two clones that share a target folder share programs.
        let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let mut command = Command::new(cargo());
        command
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(Path::new(&folder).join("Cargo.toml"));
        let json = tools::output(&mut command, Duration::from_secs(60)).map_err(WorkspaceError::Cargo)?;
        Self::parse(&json)
    }

    fn parse(json: &str) -> Result<Self, WorkspaceError> {
        let metadata: Value =
            serde_json::from_str(json).map_err(|error| WorkspaceError::Metadata(error.to_string()))?;
        Ok(Self {
            root: text(&metadata, "workspace_root")?.into(),
            target: text(&metadata, "target_directory")?.into(),
            packages: list(&metadata, "packages").map(package).collect::<Result<_, _>>()?,
        })
    }

    /// The folder of the top `Cargo.toml`.
    ///
    /// # Examples
    ///
    /// See [`Workspace::load`].
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The packages of the workspace.
    ///
    /// # Examples
    ///
    /// See [`Workspace`].
    #[must_use]
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// The folder that cargo builds into.
    ///
    /// # Examples
    ///
    /// ```
    /// let workspace = xtask::workspace::Workspace::load()?;
    /// assert!(workspace.tools().starts_with(workspace.target()));
    /// # Ok::<(), xtask::workspace::WorkspaceError>(())
    /// ```
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder that installed tools and servers go to: inside the target folder, so that `cargo clean`
    /// removes them and nothing is left on the machine.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.target.join("throughline-tools")
    }
}

/// The cargo that runs this program, or the one on the path.
///
/// # Examples
///
/// ```
/// let version = std::process::Command::new(xtask::workspace::cargo()).arg("--version").output()?;
/// assert!(version.status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The workspace could not be read.
#[non_exhaustive]
#[derive(Debug)]
pub enum WorkspaceError {
    /// `cargo metadata` did not work.
    Cargo(ToolError),
    /// `cargo metadata` said something that was not expected.
    Metadata(String),
}

impl fmt::Display for WorkspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cargo(error) => write!(f, "the workspace cannot be read: {error}; run `cargo metadata` to see why"),
            Self::Metadata(what) => write!(f, "`cargo metadata` has an unknown form: {what}"),
        }
    }
}

impl Error for WorkspaceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cargo(error) => error.source(),
            Self::Metadata(_) => None,
        }
    }
}

fn package(value: &Value) -> Result<Package, WorkspaceError> {
    let manifest = PathBuf::from(text(value, "manifest_path")?);
    let features = value.get("features").and_then(Value::as_object);
    let metadata = value.get("metadata").and_then(|metadata| metadata.get("xtask")).unwrap_or(&Value::Null);
    let of_the_system: Vec<&str> = list(metadata, "system-features").filter_map(Value::as_str).collect();
    let features =
        features.into_iter().flat_map(|map| map.keys()).filter(|name| !of_the_system.contains(&name.as_str()));
    let mut features: Vec<String> = features.cloned().collect();
    features.sort();
    Ok(Package {
        name: text(value, "name")?.to_owned(),
        folder: manifest.parent().map(Path::to_owned).unwrap_or_default(),
        features,
        // An empty list of registries; null is any.
        is_published: value.get("publish").is_none_or(Value::is_null),
        repository: value.get("repository").and_then(Value::as_str).map(str::to_owned),
        targets: list(value, "targets").map(target).collect::<Result<_, _>>()?,
    })
}

fn target(value: &Value) -> Result<Target, WorkspaceError> {
    Ok(Target {
        name: text(value, "name")?.to_owned(),
        kind: list(value, "kind").next().and_then(Value::as_str).unwrap_or_default().to_owned(),
        test: value.get("test").and_then(Value::as_bool).unwrap_or_default(),
    })
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, WorkspaceError> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| WorkspaceError::Metadata(format!("no `{key}`")))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_features_and_targets_are_read() {
        let json = r#"{"workspace_root": "/w", "target_directory": "/t", "packages": [{
            "name": "a", "manifest_path": "/w/crates/a/Cargo.toml", "features": {"json": [], "default": ["json"], "ssl": []},
            "publish": [], "repository": "https://us",
            "metadata": {"xtask": {"system-features": ["ssl"]}},
            "targets": [{"name": "a", "kind": ["lib"], "test": true}, {"name": "slow", "kind": ["bench"], "test": false}]}]}"#;
        let workspace = Workspace::parse(json).unwrap();
        let expected = Package {
            name: "a".into(),
            folder: "/w/crates/a".into(),
            features: vec!["default".into(), "json".into()],
            is_published: false,
            repository: Some("https://us".into()),
            targets: vec![
                Target { name: "a".into(), kind: "lib".into(), test: true },
                Target { name: "slow".into(), kind: "bench".into(), test: false },
            ],
        };
        assert_eq!(workspace.packages(), [expected]);
        assert_eq!(workspace.tools(), Path::new("/t/throughline-tools"));
    }

    #[test]
    fn metadata_without_packages_names_what_is_missing() {
        let error = Workspace::parse(r#"{"workspace_root": "/w"}"#).unwrap_err();
        assert!(matches!(error, WorkspaceError::Metadata(what) if what.contains("target_directory")));
    }
}

//! What a package takes along when it is published.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtask::tools;
use xtask::workspace::{Package, Workspace, cargo};

/// What stands beside the code of each package that is published.
const FILES: [&str; 4] = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Lists each package and returns a line for each file that is missing.
pub(super) fn missing(workspace: &Workspace) -> Vec<String> {
    let packages = workspace.packages().iter().filter(|package| package.is_published);
    packages.flat_map(|package| of(workspace.root(), package)).collect()
}

fn of(root: &Path, package: &Package) -> Vec<String> {
    let mut list = Command::new(cargo());
    // What is not committed yet counts.
    list.current_dir(root).args(["package", "--list", "--allow-dirty", "--package", &package.name]);
    match tools::output(&mut list, Duration::from_secs(60)) {
        Ok(list) => left_out(&list).map(|file| format!("{} is published without {file}", package.name)).collect(),
        Err(error) => vec![format!("{} cannot be listed: {error}", package.name)],
    }
}

fn left_out(list: &str) -> impl Iterator<Item = &'static str> {
    FILES.into_iter().filter(|file| !list.lines().any(|line| line == *file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_leaves_out_is_named() {
        let list = "Cargo.toml\nLICENSE-MIT\nREADME.md\ndocs/CHANGELOG.md\nsrc/lib.rs\n";
        assert_eq!(left_out(list).collect::<Vec<_>>(), ["CHANGELOG.md", "LICENSE-APACHE"]);
    }

    #[test]
    fn every_published_package_has_its_documents() {
        let workspace = Workspace::load().unwrap();
        assert!(workspace.packages().iter().any(|package| package.is_published));
        assert_eq!(missing(&workspace), [""; 0]);
    }
}

//! Documents whose program a newcomer pastes into a new package: exactly that is built.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::workspace::{Package, Workspace, cargo};

/// The first TOML block of each goes into `Cargo.toml`, the first Rust block and the tests below it into `src/main.rs`.
pub(super) const DOCUMENTS: [&str; 2] = ["README.md", "docs/src/first-service.md"];

/// Writes the package of a document into the target folder and returns the command that checks it there, without a network: the
/// lock file is that of the workspace, and packages that the document takes from the repository come from this tree.
pub(super) fn package(workspace: &Workspace, repository: &str, document: &str) -> Result<Command, Box<dyn Error>> {
    let text = fs::read_to_string(workspace.root().join(document))?;
    let manifest = manifest(&text, repository, workspace.packages())?;
    let name = document.trim_end_matches(".md").replace(['/', '.'], "-").to_lowercase();
    let folder = workspace.target().join("throughline-pasted").join(name);
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("src/main.rs"), program(&text)?)?;
    fs::copy(workspace.root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    // Clippy, as for features: it denies warnings without other compiler flags.
    let mut command = Command::new(cargo());
    command
        .args(["clippy", "--offline", "--all-targets", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(workspace.target())
        .args(["--", "--deny", "warnings"])
        // As the workspace has it for dependencies, so that those of the same features are there already.
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    Ok(command)
}

/// What `cargo new` makes, with the document's dependencies.
fn manifest(text: &str, repository: &str, packages: &[Package]) -> Result<String, String> {
    let block = blocks(text, "toml").next().ok_or("there is no TOML block")?;
    let remote = format!("git = \"{repository}\"");
    let mut manifest =
        "[workspace]\n\n[package]\nname = \"pasted\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n".to_owned();
    let mut replaced = 0;
    for line in block.lines() {
        let name = line.split('=').next().unwrap_or_default().trim();
        match packages.iter().find(|package| package.name == name) {
            Some(package) if line.contains(&remote) => {
                let local = format!("path = \"{}\"", portable(&package.folder));
                manifest.push_str(&line.replace(&remote, &local));
                replaced += 1;
            }
            Some(_) => return Err(format!("`{line}` does not say `{remote}`, and nothing is released")),
            None => manifest.push_str(line),
        }
        manifest.push('\n');
    }
    if replaced == 0 { Err("the TOML block names no package of this workspace".to_owned()) } else { Ok(manifest) }
}

fn program(text: &str) -> Result<String, String> {
    let mut blocks = blocks(text, "rust");
    let mut program = blocks.next().ok_or("there is no Rust block")?;
    for tests in blocks.filter(|block| block.starts_with("#[cfg(test)]")) {
        program.push('\n');
        program.push_str(&tests);
    }
    Ok(program)
}

/// A path in TOML: a backslash begins an escape there.
fn portable(path: &Path) -> String {
    path.display().to_string().replace('\\', "/")
}

/// The blocks in a language, such as those after "```rust,no_run".
fn blocks(text: &str, language: &str) -> impl Iterator<Item = String> {
    let begin = format!("\n```{language}");
    let parts: Vec<&str> = text.split(&begin).skip(1).collect();
    let blocks = parts.into_iter().filter_map(|part| {
        let (info, rest) = part.split_once('\n')?;
        let block = rest.split("\n```").next()?;
        (info.is_empty() || info.starts_with(',')).then(|| format!("{block}\n"))
    });
    blocks.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const TEXT: &str = "# A\n```toml\n[dependencies]\nours = { git = \"https://us\", features = [\"a\"] }\nserde = \"1\"\n```\n\
        ```rust,no_run\nfn main() {}\n```\n```rust\nfn other() {}\n```\n```rust\n#[cfg(test)]\nmod tests {}\n```\n";

    fn ours() -> Package {
        Package {
            name: "ours".into(),
            folder: PathBuf::from("/tree/ours"),
            features: Vec::new(),
            is_published: true,
            repository: None,
            targets: Vec::new(),
        }
    }

    #[test]
    fn the_manifest_is_that_of_a_new_package_with_the_tree_in_place_of_the_repository() {
        let manifest = manifest(TEXT, "https://us", &[ours()]).unwrap();
        let expected = "[dependencies]\nours = { path = \"/tree/ours\", features = [\"a\"] }\nserde = \"1\"\n";
        assert!(manifest.ends_with(expected), "{manifest}");
    }

    #[test]
    fn a_dependency_that_cannot_work_is_refused() {
        let released = TEXT.replace("git = \"https://us\"", "version = \"1\"");
        assert!(manifest(&released, "https://us", &[ours()]).unwrap_err().contains("nothing is released"));
        assert!(manifest(TEXT, "https://us", &[]).is_err(), "a block without a package of ours");
    }

    #[test]
    fn the_program_is_the_first_block_with_the_tests() {
        assert_eq!(program(TEXT).unwrap(), "fn main() {}\n\n#[cfg(test)]\nmod tests {}\n");
    }
}

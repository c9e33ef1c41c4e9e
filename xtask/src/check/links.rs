//! Links that lead nowhere: in the tree, in the book that is built of `docs/src`, and in documents that leave the repository
//! with a package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The pages of the book.
const BOOK: &str = "docs/src";
/// The contents of the book: a page that it does not link is not built.
const SUMMARY: &str = "docs/src/SUMMARY.md";

/// Returns a line for each dead link; `repository` is the address at which others see the tree.
pub(super) fn dead(root: &Path, repository: &str) -> io::Result<Vec<String>> {
    let mut documents = BTreeMap::new();
    collect(root, Path::new(""), &mut documents)?;
    let tree = Tree { root, repository, documents };
    let links = tree.documents.iter().flat_map(|(path, text)| links(text).into_iter().map(move |link| (path, link)));
    let mut lines: Vec<String> = links
        .filter_map(|(path, link)| {
            tree.fault(path, &link).map(|why| format!("{} links to `{link}`: {why}", path.display()))
        })
        .collect();
    lines.extend(tree.pages_outside_of_the_book());
    Ok(lines)
}

struct Tree<'a> {
    root: &'a Path,
    repository: &'a str,
    /// The text of each document without its code, by its path in the tree.
    documents: BTreeMap<PathBuf, String>,
}

impl Tree<'_> {
    /// Says what is wrong with a link, if anything is.
    fn fault(&self, from: &Path, link: &str) -> Option<String> {
        let (path, heading) = link.split_once('#').unwrap_or((link, ""));
        let to = if path.is_empty() {
            from.to_owned()
        } else if let Some(rest) = path.strip_prefix(self.repository) {
            // Other addresses of the repository, such as its issues, are not in the tree.
            PathBuf::from(rest.strip_prefix("/blob/main/").or_else(|| rest.strip_prefix("/tree/main/"))?)
        } else if path.contains("://") || path.starts_with("mailto:") {
            return None;
        } else if leaves_with_a_package(from) {
            return Some(format!("outside of the repository it leads nowhere; write {}/blob/main/…", self.repository));
        } else {
            let to = normal(&from.parent().unwrap_or(Path::new("")).join(path));
            if from.starts_with(BOOK) && !to.starts_with(BOOK) {
                return Some(format!("it is not in the built book; write {}/blob/main/…", self.repository));
            }
            to
        };
        if !self.root.join(&to).exists() {
            return Some(format!("there is no {}", to.display()));
        }
        let has_heading = || self.documents.get(&to).is_some_and(|text| anchors(text).contains(heading));
        (!heading.is_empty() && !has_heading()).then(|| "there is no such heading".to_owned())
    }

    fn pages_outside_of_the_book(&self) -> Vec<String> {
        let Some(summary) = self.documents.get(Path::new(SUMMARY)) else { return Vec::new() };
        let listed: BTreeSet<PathBuf> = links(summary).iter().map(|link| Path::new(BOOK).join(link)).collect();
        let pages = self.documents.keys().filter(|path| path.starts_with(BOOK) && *path != Path::new(SUMMARY));
        pages
            .filter(|page| !listed.contains(*page))
            .map(|page| format!("{} is not in {SUMMARY}, so the book leaves it out", page.display()))
            .collect()
    }
}

/// README and changelog are shown on the pages of a registry.
fn leaves_with_a_package(document: &Path) -> bool {
    document.file_name().is_some_and(|name| name == "README.md" || name == "CHANGELOG.md")
}

fn collect(root: &Path, folder: &Path, documents: &mut BTreeMap<PathBuf, String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, kind) = (folder.join(&name), entry.file_type()?);
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            collect(root, &path, documents)?;
        } else if !kind.is_dir() && name.ends_with(".md") {
            documents.insert(path, without_code(&fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                if !normal.pop() {
                    normal.push("..");
                }
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The targets of the links and of the pictures.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    // `[name]: target` on a line of its own.
    let definitions = text.lines().filter_map(|line| {
        let (name, target) = line.strip_prefix('[')?.split_once("]:")?;
        (!name.is_empty()).then_some(target.trim())
    });
    targets.chain(definitions).filter(|target| !target.is_empty()).map(str::to_owned).collect()
}

/// The names of the headings in links, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in text.lines().filter(|line| line.starts_with('#')) {
        let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let name: String = text.chars().filter(|sign| sign.is_alphanumeric() || "-_".contains(*sign)).collect();
        let mut unique = name.clone();
        for number in 1.. {
            if anchors.insert(unique) {
                break;
            }
            unique = format!("{name}-{number}");
        }
    }
    anchors
}

/// The text without code blocks, and with code in a line only where it is part of a heading.
fn without_code(text: &str) -> String {
    let mut kept = String::new();
    let mut fence: Option<String> = None;
    for line in text.lines() {
        let begin = line.trim_start();
        let ticks: String = begin.chars().take_while(|sign| begin.starts_with(*sign)).collect();
        let is_fence = ticks.len() >= 3 && (ticks.starts_with('`') || ticks.starts_with('~'));
        match &fence {
            Some(open) if is_fence && ticks.starts_with(open.as_str()) && begin.trim_end() == ticks => fence = None,
            Some(_) => {}
            None if is_fence => fence = Some(ticks),
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    let paragraphs = kept
        .split("\n\n")
        .map(|paragraph| if paragraph.starts_with('#') { paragraph.to_owned() } else { without_spans(paragraph) });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// A paragraph without the code in its lines. A backtick that nothing closes is text.
fn without_spans(mut paragraph: &str) -> String {
    let mut kept = String::new();
    while let Some((before, rest)) = paragraph.split_once('`') {
        let more = rest.len() - rest.trim_start_matches('`').len();
        let ticks = "`".repeat(more + 1);
        kept.push_str(before);
        let inside = rest.get(more..).unwrap_or_default();
        paragraph = match inside.split_once(&ticks) {
            Some((_, after)) => after,
            None => {
                kept.push_str(&ticks);
                inside
            }
        };
    }
    kept + paragraph
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: &str = "https://example.org/us/project";

    fn lines(documents: &[(&str, &str)]) -> Vec<String> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("xtask-links-{}-{number}", std::process::id()));
        for (path, text) in documents {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let lines = dead(&root, REPOSITORY).unwrap();
        fs::remove_dir_all(&root).unwrap();
        lines
    }

    #[test]
    fn this_tree_has_no_dead_link() {
        let workspace = xtask::workspace::Workspace::load().unwrap();
        let repository = workspace.packages().iter().find_map(|package| package.repository.clone()).unwrap();
        assert_eq!(dead(workspace.root(), &repository).unwrap(), [""; 0]);
    }

    #[test]
    fn a_link_to_a_file_or_a_heading_that_is_gone_is_dead() {
        let text = "# One\n## One\n[a](b.md) [c](#one) [c](#one-1) [d](#two)\n\n[e]: f.md\n[g](DESIGN.md \"title\")";
        assert_eq!(
            lines(&[("DESIGN.md", text)]),
            [
                "DESIGN.md links to `b.md`: there is no b.md",
                "DESIGN.md links to `#two`: there is no such heading",
                "DESIGN.md links to `f.md`: there is no f.md",
            ]
        );
    }

    #[test]
    fn what_is_code_is_no_link() {
        let text = "`[a](b)` and ``[`](b)`` and `over\nlines [a](b)` `open\n\n```text\n[a](b)\n# [a](c)\n```\n\n[a](d)";
        assert_eq!(lines(&[("DESIGN.md", text)]), ["DESIGN.md links to `d`: there is no d"]);
    }

    #[test]
    fn a_page_of_the_book_links_only_what_the_book_has() {
        let found = lines(&[
            ("README.md", "# Top"),
            (SUMMARY, "- [a](a.md)\n- [b](sub/b.md)"),
            ("docs/src/a.md", "[readme](../../README.md#top)"),
            ("docs/src/sub/b.md", "[a](../a.md)"),
            ("docs/src/left-out.md", ""),
        ]);
        assert_eq!(
            found,
            [
                format!(
                    "docs/src/a.md links to `../../README.md#top`: it is not in the built book; write {REPOSITORY}/blob/main/…"
                ),
                format!("docs/src/left-out.md is not in {SUMMARY}, so the book leaves it out"),
            ]
        );
    }

    #[test]
    fn a_document_of_a_package_links_by_address() {
        let text =
            format!("# Top\n[a](DESIGN.md) [b]({REPOSITORY}/blob/main/DESIGN.md#top) [c]({REPOSITORY}/tree/main/gone)");
        assert_eq!(
            lines(&[("crates/a/README.md", &text), ("DESIGN.md", "# Top")]),
            [
                format!(
                    "crates/a/README.md links to `DESIGN.md`: outside of the repository it leads nowhere; write {REPOSITORY}/blob/main/…"
                ),
                format!("crates/a/README.md links to `{REPOSITORY}/tree/main/gone`: there is no gone"),
            ]
        );
    }
}

//! What every way to install a server has in common.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{ServerError, ServerErrorKind};

/// One way to install; a failure is noted and the next way is tried, except after Ctrl-C.
pub(super) fn attempt(
    result: Result<PathBuf, ServerError>,
    tried: &mut Vec<String>,
) -> Result<Option<PathBuf>, ServerError> {
    match result {
        Ok(program) => Ok(Some(program)),
        Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
        Err(error) => {
            let reason = error.reason();
            if !tried.contains(&reason) {
                tried.push(reason);
            }
            Ok(None)
        }
    }
}

/// Fills a folder under another name and renames it: what was interrupted is never taken for complete.
pub(super) fn into_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let mut partial = folder.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    fs::create_dir_all(&partial)?;
    let result = fill(&partial).and_then(|()| match fs::rename(&partial, folder) {
        // Another run of this program was faster.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => Ok(renamed?),
    });
    let _ = fs::remove_dir_all(&partial);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_install_leaves_nothing() {
        let parent = std::env::temp_dir().join(format!("xtask-install-{}", std::process::id()));
        let folder = parent.join("server-v1.2");
        into_folder(&folder, |_| Err(ServerError::interrupted())).unwrap_err();
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
        into_folder(&folder, |partial| Ok(fs::write(partial.join("program"), "")?)).unwrap();
        assert!(folder.join("program").is_file());
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_failed_way_is_noted_and_an_interrupt_ends_the_search() {
        let mut tried = Vec::new();
        let failed = Err(ServerError::new(ServerErrorKind::Unavailable, "no go"));
        assert!(attempt(failed, &mut tried).unwrap().is_none());
        assert_eq!(tried, ["no go"]);
        assert!(attempt(Err(ServerError::interrupted()), &mut tried).is_err());
    }
}

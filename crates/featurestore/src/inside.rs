//! Paths that stay inside a folder.

use std::path::{Component, Path, PathBuf};

/// Where `path` lies in the folder `root`. What counts is where it lies after all symbolic links are followed; the part of it that
/// is not there yet cannot be one.
///
/// # Errors
/// When it leaves the folder, or the folder cannot be read.
pub fn inside(root: &Path, path: &str) -> Result<PathBuf, String> {
    let relative = Path::new(path);
    let outside = || format!("`{path}` leaves the project's folder");
    if path.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(outside());
    }
    let unreadable = |error| format!("`{path}`: {error}");
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let root = root.canonicalize().map_err(unreadable)?;
    let full = root.join(relative);
    let there = full.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(&root);
    if !there.canonicalize().map_err(unreadable)?.starts_with(&root) {
        return Err(outside());
    }
    Ok(full)
}

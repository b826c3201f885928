//! Where files lie: in folders, or elsewhere by a URL.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{LoadError, source::Format};

/// A file that can be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileAt {
    /// The folder that it lies in; of no meaning for a URL.
    pub folder: PathBuf,
    /// Its path in the folder, or its URL.
    pub name: String,
}

/// The most files of one place.
pub(super) const MOST_FILES: usize = 1 << 16;

/// The folder in the folder of a Delta table that says which of its files are its rows.
pub const DELTA_LOG: &str = "_delta_log";

/// Whether a file is named by a URL, and not by a path.
pub fn is_url(file: &str) -> bool {
    let scheme = file.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// The files at a place, in the order of their names: one file, all of a folder and those in it, or those whose names match a last
/// part with `*`. Files of unknown endings, and those whose names begin with `.` or `_`, are left out of folders. The folder of a
/// Delta table counts as one file.
///
/// A place is a path, or a URL that begins with `file://`, or, with the feature `cloud`, with `s3://`, `gs://` or `az://`; there a
/// folder ends with `/`. Who asks is told by the environment: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
///
/// # Errors
/// When there is no file at the place, or it cannot be read.
pub fn files(place: &str) -> Result<Vec<FileAt>, LoadError> {
    let failed = |source| LoadError::Open { file: place.to_owned(), source };
    if let Some(path) = local(place) {
        return within(Path::new(path)).map_err(failed);
    }
    let names = elsewhere(place)?.into_iter();
    sorted(names.map(|name| FileAt { folder: ".".into(), name }).collect()).map_err(failed)
}

/// The same of a path.
pub(super) fn within(path: &Path) -> io::Result<Vec<FileAt>> {
    sorted(in_folders(path)?)
}

fn sorted(mut files: Vec<FileAt>) -> io::Result<Vec<FileAt>> {
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no .parquet, .csv or .jsonl there"));
    }
    files.sort();
    Ok(files)
}

/// Whether a path stands for the files of a folder, or for those whose names match its last part, and not for one file or a table.
pub fn is_many(path: &Path) -> bool {
    let pattern = || path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains('*'));
    if path.is_dir() { !is_table(path) } else { !path.exists() && pattern() }
}

/// Why something is not read.
pub(super) fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a file")
}

/// The path of a place that is one.
pub(super) fn local(place: &str) -> Option<&str> {
    if is_url(place) { place.strip_prefix("file://") } else { Some(place) }
}

fn in_folders(path: &Path) -> io::Result<Vec<FileAt>> {
    let mut files = Vec::new();
    let (folder, name) =
        (path.parent().unwrap_or(Path::new("")), path.file_name().and_then(|name| name.to_str()));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if is_table(path) {
        // `.` has no name.
        let (folder, name) = name.map_or((path, "."), |name| (folder, name));
        return Ok(vec![FileAt { folder: folder.to_owned(), name: name.to_owned() }]);
    }
    if path.is_dir() {
        walk(path, path, &mut files)?;
        return Ok(files);
    }
    match name {
        Some(pattern) if pattern.contains('*') => {
            if is_table(folder) {
                return Err(not_by_file("only its log says which of its files count; name the folder"));
            }
            for entry in fs::read_dir(folder)? {
                let name = entry?.file_name();
                if let Some(name) = name.to_str().filter(|name| matches(pattern, name) && wanted(name)) {
                    push(&mut files, FileAt { folder: folder.to_owned(), name: name.to_owned() })?;
                }
            }
        }
        Some(name) => files.push(FileAt { folder: folder.to_owned(), name: name.to_owned() }),
        None => {}
    }
    Ok(files)
}

/// The files of a folder and those in it. Of what is deleted meanwhile nothing is found.
fn walk(root: &Path, folder: &Path, files: &mut Vec<FileAt>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if folder != root && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().filter(|name| !name.starts_with(['.', '_'])) else { continue };
        // A link is not followed: it may lead back.
        let is_folder = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?.is_dir(),
        };
        if is_folder && !is_table(&path) {
            walk(root, &path, files)?;
        } else if (is_folder || wanted(name))
            && let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str)
        {
            push(files, FileAt { folder: root.to_owned(), name: name.to_owned() })?;
        }
    }
    Ok(())
}

/// Whether a folder is that of a Delta table: not all files in it are rows.
pub(super) fn is_table(folder: &Path) -> bool {
    folder.join(DELTA_LOG).is_dir()
}

/// Why some or all files of a Delta table are not read as files.
fn not_by_file(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("it is a Delta table: {problem}"))
}

#[cfg(not(feature = "delta"))]
pub(super) fn no_tables() -> io::Error {
    not_by_file("this build reads none; build it with the feature `delta`")
}

fn push(files: &mut Vec<FileAt>, file: FileAt) -> io::Result<()> {
    if files.len() == MOST_FILES {
        return Err(io::Error::other(format!("more than {MOST_FILES} files")));
    }
    files.push(file);
    Ok(())
}

/// Whether a folder has files of a place that are none of `known`: such came after those were listed.
pub(super) fn has_others(place: &Path, folder: &Path, known: impl Fn(&Path) -> bool) -> io::Result<bool> {
    let pattern = if place.is_dir() { None } else { place.file_name().and_then(|name| name.to_str()) };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_of = |name: &str| wanted(name) && pattern.is_none_or(|pattern| matches(pattern, name));
        if entry.file_name().to_str().is_some_and(is_of) && !known(&entry.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn wanted(name: &str) -> bool {
    Format::of(name).is_some() && !name.starts_with(['.', '_'])
}

/// Whether a name matches a pattern, in which `*` stands for any part.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(not(feature = "cloud"))]
fn elsewhere(place: &str) -> Result<Vec<String>, LoadError> {
    Err(unreadable(place))
}

#[cfg(not(feature = "cloud"))]
pub(super) fn unreadable(url: &str) -> LoadError {
    let problem = "this build reads no URLs but file://; build it with the feature `cloud`";
    // The rest of it may have a login in it.
    let file = url.split_once("://").map_or(url, |(scheme, _)| scheme).to_owned() + "://";
    LoadError::Open { file, source: io::Error::new(io::ErrorKind::Unsupported, problem) }
}

#[cfg(feature = "cloud")]
fn elsewhere(place: &str) -> Result<Vec<String>, LoadError> {
    let (prefix, pattern) = match place.rsplit_once('/') {
        Some((prefix, pattern)) if pattern.contains('*') => (format!("{prefix}/"), Some(pattern)),
        _ => (place.to_owned(), None),
    };
    if pattern.is_none() && !place.ends_with('/') {
        return Ok(vec![place.to_owned()]);
    }
    let mut names = super::cloud::list(&prefix, MOST_FILES)?;
    let is_log = |name: &String| name.split('/').any(|part| part == DELTA_LOG);
    if names.iter().any(is_log) {
        let source = not_by_file("such are read in folders of this machine only, not at URLs");
        return Err(LoadError::Open { file: place.to_owned(), source });
    }
    names.retain(|name| {
        let within = name.strip_prefix(&*prefix).unwrap_or(name);
        let hidden = within.split('/').any(|part| part.starts_with(['.', '_']));
        !hidden
            && wanted(within)
            && pattern.is_none_or(|pattern| !within.contains('/') && matches(pattern, within))
    });
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_any_part_of_a_name() {
        for (pattern, name, expected) in [
            ("*.csv", "a.csv", true),
            ("*.csv", ".csv", true),
            ("*.csv", "a.csv.gz", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_place_is_a_file_or_the_files_of_a_folder_or_of_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.parquet", "sub/day=1/c.jsonl", "sub/_d.csv", ".e.csv", "f.txt", "_g/h.csv"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = dir.path().to_str().unwrap();
        let check = |place: &str, expected: &[&str]| {
            let found: Vec<_> = files(place).unwrap().into_iter().map(|file| file.name).collect();
            assert_eq!(found, expected, "{place}");
        };
        check(root, &["a.parquet", "b.csv", "sub/day=1/c.jsonl"]);
        check(&format!("file://{root}"), &["a.parquet", "b.csv", "sub/day=1/c.jsonl"]);
        check(&format!("{root}/*.csv"), &["b.csv"]);
        check(&format!("{root}/no.csv"), &["no.csv"]);
        fs::create_dir(dir.path().join("empty")).unwrap();
        for nothing in ["*.orc", "empty"] {
            assert!(files(&format!("{root}/{nothing}")).is_err(), "{nothing}");
        }
    }

    #[test]
    fn a_delta_table_is_one_file_and_never_those_that_lie_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["a.csv", "t/_delta_log/0.json", "t/p.parquet", "sub/u/_delta_log/0.json", "sub/u/p.parquet"]
        {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = dir.path().to_str().unwrap();
        for (place, names) in [
            (root.to_owned(), vec!["a.csv", "sub/u", "t"]),
            (format!("{root}/t"), vec!["t"]),
            (format!("{root}/t/"), vec!["t"]),
            (format!("{root}/t/."), vec!["t"]),
            (format!("{root}/sub/u/.."), vec!["u"]),
        ] {
            let found = files(&place).unwrap();
            assert_eq!(found.iter().map(|file| &*file.name).collect::<Vec<_>>(), names, "{place}");
            assert!(found.iter().all(|file| file.folder.join(&file.name).exists()), "{place}");
        }
        let error = files(&format!("{root}/t/*.parquet")).unwrap_err();
        let problem = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            problem,
            "it is a Delta table: only its log says which of its files count; name the folder"
        );
    }

    #[test]
    fn a_url_has_a_scheme() {
        for (text, expected) in
            [("s3://b/k", true), ("a/b://c", false), ("://x", false), ("data/x.csv", false)]
        {
            assert_eq!(is_url(text), expected, "{text}");
        }
    }
}

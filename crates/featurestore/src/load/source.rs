//! A file of a project: where it lies, what is in it.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use arrow::datatypes::DataType;
use millstream_graph::suggest;
use sha2::{Digest, Sha256};

#[cfg(feature = "delta")]
use super::delta;
use super::{At, FileAt, LoadError, LoadOptions, Place, Sink, columnar, lines, places, separated};
use crate::set::Column;

/// A readable file or table, or many files: inside the project's folder, or a copy of a file that lies elsewhere.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    path: PathBuf,
    content: Content,
    /// Goes with the source.
    #[cfg(feature = "cloud")]
    _copy: Option<tempfile::TempPath>,
}

#[derive(Debug)]
enum Content {
    File(Format),
    /// All of a folder, or of a pattern, in the order of their names.
    Files(Vec<Source>),
    #[cfg(feature = "delta")]
    Table(delta::Table),
    /// A data file of a table.
    #[cfg(feature = "delta")]
    Part(delta::Part),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Parquet,
    Csv,
    JsonLines,
}

/// One of the steps by which a set takes a file or a table.
#[cfg_attr(not(feature = "delta"), expect(dead_code, reason = "files without a table are read, and no more"))]
pub(crate) enum Step<'a> {
    /// The rows of this are taken, as far as they have not been.
    Read(&'a Source),
    /// The same, of a data file in whose place another came.
    Before(Source),
    /// All rows of what is known by this have been taken by then, in other files.
    Taken(String),
    /// This has rows that have been taken in other files, beside others or changed.
    Rewritten(&'a Source),
}

/// The columns of a file and their types; `None` where no value tells it.
pub(crate) type Columns = Vec<(String, Option<DataType>)>;

/// How often the files of a folder are listed until they stand still.
const TRIES: usize = 8;

impl Format {
    /// What a file of this name has in it.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        Some(match ending.to_ascii_lowercase().as_str() {
            "parquet" => Self::Parquet,
            "csv" => Self::Csv,
            "jsonl" | "ndjson" => Self::JsonLines,
            _ => return None,
        })
    }
}

impl Source {
    /// Finds the file, the files or the table, or fetches the file. What counts is where it lies after all symbolic links are
    /// followed.
    pub(crate) fn open(root: &Path, file: &str) -> Result<Self, LoadError> {
        let Some(local) = places::local(file) else { return Self::fetch(file.to_owned()) };
        let open = |source| LoadError::Open { file: file.to_owned(), source };
        let root = root.canonicalize().map_err(open)?;
        let place = root.join(local);
        if places::is_many(&place) { Self::many(file, &root, &place) } else { Self::one(file, &root, &place) }
    }

    fn one(file: &str, root: &Path, place: &Path) -> Result<Self, LoadError> {
        let name = file.to_owned();
        let open = |source| LoadError::Open { file: file.to_owned(), source };
        let path = place.canonicalize().map_err(open)?;
        if !path.starts_with(root) {
            return Err(LoadError::Outside { file: name });
        }
        if places::is_table(&path) {
            return Self::table(name, root, path);
        }
        if !path.is_file() {
            return Err(open(places::no_file()));
        }
        let format =
            Format::of(&path.to_string_lossy()).ok_or(LoadError::Format { file: file.to_owned() })?;
        Ok(Self::at(name, path, Content::File(format)))
    }

    /// All files of a folder, or of a pattern.
    fn many(file: &str, root: &Path, place: &Path) -> Result<Self, LoadError> {
        let open = |source| LoadError::Open { file: file.to_owned(), source };
        let folder = if place.is_dir() { Some(place) } else { place.parent() };
        if !folder.unwrap_or(root).canonicalize().map_err(open)?.starts_with(root) {
            return Err(LoadError::Outside { file: file.to_owned() });
        }
        let above = if place.is_dir() {
            Some(file.strip_suffix('/').unwrap_or(file))
        } else {
            file.rsplit_once('/').map(|(above, _)| above)
        };
        let part = |at: &FileAt| -> Result<Self, LoadError> {
            let place = at.folder.join(&at.name);
            let name = above.map_or(at.name.clone(), |above| format!("{above}/{}", at.name));
            let part = Self::one(&name, root, &place)?;
            match part.content {
                Content::File(_) => Ok(part),
                // The folder of a table is no file among others.
                _ => Err(LoadError::Open { file: name, source: places::no_file() }),
            }
        };
        let listed = || places::within(place).map_err(open);
        let mut found = listed()?;
        for left in (0..TRIES).rev() {
            let parts: Result<Vec<Self>, _> = found.iter().map(part).collect();
            // A listing that is made while files are replaced may have neither them nor what replaces them. So they are listed again,
            // until that changes nothing; where files only come, as they always may, the last listing does.
            let again = listed()?;
            let only_more = || found.iter().all(|file| again.binary_search(file).is_ok());
            if found == again || (left == 0 && only_more()) {
                return Ok(Self::at(file.to_owned(), place.to_owned(), Content::Files(parts?)));
            }
            found = again;
        }
        Err(LoadError::Replaced { file: file.to_owned() })
    }

    #[cfg(feature = "delta")]
    fn table(name: String, root: &Path, path: PathBuf) -> Result<Self, LoadError> {
        let table = delta::open(&name, root, &path)?;
        Ok(Self::at(name, path, Content::Table(table)))
    }

    #[cfg(not(feature = "delta"))]
    fn table(name: String, _: &Path, _: PathBuf) -> Result<Self, LoadError> {
        Err(LoadError::Open { file: name, source: places::no_tables() })
    }

    #[cfg(feature = "delta")]
    pub(super) fn as_part(&self) -> Option<&delta::Part> {
        match &self.content {
            Content::Part(part) => Some(part),
            _ => None,
        }
    }

    /// A data file of a table.
    #[cfg(feature = "delta")]
    pub(super) fn part(name: String, path: PathBuf, part: delta::Part) -> Self {
        Self::at(name, path, Content::Part(part))
    }

    fn at(name: String, path: PathBuf, content: Content) -> Self {
        Self {
            name,
            path,
            content,
            #[cfg(feature = "cloud")]
            _copy: None,
        }
    }

    #[cfg(feature = "cloud")]
    fn fetch(name: String) -> Result<Self, LoadError> {
        super::cloud::check(&name)?;
        let Some(format) = Format::of(&name) else { return Err(LoadError::Format { file: name }) };
        let copy = super::cloud::fetch(&name)?;
        Ok(Self { name, path: copy.to_path_buf(), content: Content::File(format), _copy: Some(copy) })
    }

    #[cfg(not(feature = "cloud"))]
    #[expect(clippy::needless_pass_by_value, reason = "with the feature `cloud` the source keeps it")]
    fn fetch(name: String) -> Result<Self, LoadError> {
        Err(places::unreadable(&name))
    }

    /// The path as given.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn place(&self, at: At) -> Place {
        Place { file: self.name.clone(), at }
    }

    pub(crate) fn malformed(&self, at: At, problem: impl std::fmt::Display) -> LoadError {
        LoadError::Malformed { place: self.place(at), problem: problem.to_string() }
    }

    pub(super) fn file(&self) -> Result<File, LoadError> {
        File::open(&self.path).map_err(|source| LoadError::Open { file: self.name.clone(), source })
    }

    /// What it is made of: itself, the files of a folder, or the data files of a table.
    pub(crate) fn parts(&self) -> &[Self] {
        if let Content::Files(parts) = &self.content {
            return parts;
        }
        #[cfg(feature = "delta")]
        if let Content::Table(table) = &self.content {
            return table.parts();
        }
        std::slice::from_ref(self)
    }

    /// Takes its [parts](Self::parts), one after the other. Of the files of a folder, one that is deleted before its turn is left out,
    /// as if it had been deleted before it was listed; so a folder whose oldest files are deleted now and then can be read at any time.
    ///
    /// # Errors
    /// Those of `take`, which opens a file before it does anything with its rows; and when another file came where one is gone: its
    /// rows may be in that one.
    pub(crate) fn each(&self, mut take: impl FnMut(&Self) -> Result<(), LoadError>) -> Result<(), LoadError> {
        let mut gone: Vec<&str> = Vec::new();
        for part in self.parts() {
            match take(part) {
                Err(error) if self.is_files() && part.is_gone(&error) => {
                    if self.is_replaced(part)? {
                        return Err(LoadError::Replaced { file: self.name.clone() });
                    }
                    gone.push(&part.name);
                }
                taken => taken?,
            }
        }
        if let Some(first) = gone.first() {
            let files = gone.len();
            tracing::warn!(source = self.name, files, first, "files were deleted before they were read");
        }
        Ok(())
    }

    /// Whether this error says that it is not there any more.
    fn is_gone(&self, error: &LoadError) -> bool {
        match error {
            LoadError::Open { file, source } => {
                *file == self.name && source.kind() == io::ErrorKind::NotFound
            }
            _ => false,
        }
    }

    /// Whether there are files beside one of its parts that were not there when they were listed.
    fn is_replaced(&self, part: &Self) -> Result<bool, LoadError> {
        let Some(folder) = part.path.parent() else { return Ok(false) };
        let known: HashSet<&Path> = self.parts().iter().map(|part| part.path.as_path()).collect();
        places::has_others(&self.path, folder, |file| known.contains(file))
            .map_err(|source| LoadError::Open { file: self.name.clone(), source })
    }

    /// Whether it is the files of a folder or of a pattern.
    pub(crate) fn is_files(&self) -> bool {
        matches!(self.content, Content::Files(_))
    }

    /// By which steps a set takes it. `mark` says up to which of its rows a data file of a table has been taken, by what its rows
    /// are known by.
    #[cfg_attr(not(feature = "delta"), expect(unused_variables, reason = "only tables ask for marks"))]
    pub(crate) fn steps(
        &self,
        mark: &mut dyn FnMut(&str) -> Result<Option<u64>, LoadError>,
    ) -> Result<Vec<Step<'_>>, LoadError> {
        #[cfg(feature = "delta")]
        if let Content::Table(table) = &self.content {
            return table.steps(mark);
        }
        Ok(self.parts().iter().map(Step::Read).collect())
    }

    /// What its rows are known by, beside their numbers: its content, or which data file of which table it is.
    pub(crate) fn identity(&self) -> Result<String, LoadError> {
        #[cfg(feature = "delta")]
        if let Some(part) = self.as_part() {
            return Ok(part.identity());
        }
        let failed = |source| LoadError::Open { file: self.name.clone(), source };
        let (mut file, mut digest) = (self.file()?, Sha256::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => return Ok(format!("file:{}", hexadecimal(&digest.finalize()))),
                read => digest.update(&buffer[..read]),
            }
        }
    }

    /// The number by which a row is known, which is the one after `before` that are read: rows of a table keep theirs when others
    /// are deleted. `at` says where it stands.
    #[cfg_attr(
        not(feature = "delta"),
        expect(unused_variables, reason = "only rows of tables ask where they stand")
    )]
    pub(crate) fn number(&self, before: u64, at: impl FnOnce() -> At) -> u64 {
        #[cfg(feature = "delta")]
        if self.as_part().is_some()
            && let At::Row(row) = at()
        {
            return row - 1;
        }
        before
    }

    /// The columns of the file, typed as found; of many, those of the last one by name.
    pub(crate) fn columns(&self, options: &LoadOptions) -> Result<Columns, LoadError> {
        match &self.content {
            Content::File(Format::Parquet) => columnar::columns(self),
            Content::File(Format::Csv) => separated::columns(self, options.infer_rows),
            Content::File(Format::JsonLines) => lines::columns(self, options.infer_rows),
            Content::Files(parts) => {
                let mut parts = parts.iter().rev().map(|part| (part, part.columns(options)));
                let there = |(part, columns): &(&Self, Result<Columns, LoadError>)| {
                    !columns.as_ref().is_err_and(|error| part.is_gone(error))
                };
                let none = || Err(LoadError::Replaced { file: self.name.clone() });
                parts.find(there).map_or_else(none, |(_, columns)| columns)
            }
            #[cfg(feature = "delta")]
            Content::Table(table) => Ok(table.columns()),
            #[cfg(feature = "delta")]
            Content::Part(part) => Ok(part.columns()),
        }
    }

    /// Reads the wanted columns, batch by batch; of many files or a table, of one file after the other.
    pub(crate) fn read(&self, wanted: &[Column], sink: &mut Sink<'_>) -> Result<(), LoadError> {
        match &self.content {
            Content::File(Format::Parquet) => columnar::read(self, wanted, sink),
            Content::File(Format::Csv) => separated::read(self, wanted, sink),
            Content::File(Format::JsonLines) => lines::read(self, wanted, sink),
            Content::Files(_) => self.each(|part| part.read(wanted, sink)),
            #[cfg(feature = "delta")]
            Content::Table(table) => table.parts().iter().try_for_each(|part| part.read(wanted, sink)),
            #[cfg(feature = "delta")]
            Content::Part(part) => part.read(self, wanted, sink),
        }
    }

    /// Where each wanted column stands among those of the file; every missing one is named.
    pub(super) fn locate(&self, wanted: &[Column], names: &[String]) -> Result<Vec<usize>, LoadError> {
        let mut problems = Vec::new();
        let mut found = Vec::with_capacity(wanted.len());
        for Column { name, .. } in wanted {
            match names.iter().position(|found| found == name) {
                Some(at) => found.push(at),
                None => problems.push(suggest::unknown("column", name, names.iter().map(String::as_str))),
            }
        }
        if problems.is_empty() {
            Ok(found)
        } else {
            Err(LoadError::Columns { file: self.name.clone(), problems })
        }
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

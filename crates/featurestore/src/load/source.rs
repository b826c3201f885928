//! A file of a project: where it lies, what is in it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use arrow::datatypes::DataType;
use millstream_graph::suggest;
use sha2::{Digest, Sha256};

use super::{At, LoadError, LoadOptions, Place, Sink, columnar, lines, places, separated};
use crate::set::Column;

/// A readable file: inside the project's folder, or a copy of one that lies elsewhere.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    path: PathBuf,
    format: Format,
    /// Goes with the source.
    #[cfg(feature = "cloud")]
    _copy: Option<tempfile::TempPath>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Parquet,
    Csv,
    JsonLines,
}

/// The columns of a file and their types; `None` where no value tells it.
pub(crate) type Columns = Vec<(String, Option<DataType>)>;

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
    /// Finds the file, or fetches it. What counts is where it lies after all symbolic links are followed.
    pub(crate) fn open(root: &Path, file: &str) -> Result<Self, LoadError> {
        let name = file.to_owned();
        let open = |source| LoadError::Open { file: file.to_owned(), source };
        let Some(local) = places::local(file) else { return Self::fetch(name) };
        let root = root.canonicalize().map_err(open)?;
        let path = root.join(local).canonicalize().map_err(open)?;
        if !path.starts_with(&root) {
            return Err(LoadError::Outside { file: name });
        }
        if !path.is_file() {
            return Err(open(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
        }
        let format =
            Format::of(&path.to_string_lossy()).ok_or(LoadError::Format { file: file.to_owned() })?;
        Ok(Self {
            name,
            path,
            format,
            #[cfg(feature = "cloud")]
            _copy: None,
        })
    }

    #[cfg(feature = "cloud")]
    fn fetch(name: String) -> Result<Self, LoadError> {
        super::cloud::check(&name)?;
        let Some(format) = Format::of(&name) else { return Err(LoadError::Format { file: name }) };
        let copy = super::cloud::fetch(&name)?;
        Ok(Self { name, path: copy.to_path_buf(), format, _copy: Some(copy) })
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

    /// What tells its content from any other, in hexadecimal digits.
    pub(crate) fn digest(&self) -> Result<String, LoadError> {
        let failed = |source| LoadError::Open { file: self.name.clone(), source };
        let (mut file, mut digest) = (self.file()?, Sha256::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                read => digest.update(&buffer[..read]),
            }
        }
    }

    /// The columns of the file, typed as found.
    pub(crate) fn columns(&self, options: &LoadOptions) -> Result<Columns, LoadError> {
        match self.format {
            Format::Parquet => columnar::columns(self),
            Format::Csv => separated::columns(self, options.infer_rows),
            Format::JsonLines => lines::columns(self, options.infer_rows),
        }
    }

    /// Reads the wanted columns, batch by batch.
    pub(crate) fn read(&self, wanted: &[Column], sink: &mut Sink<'_>) -> Result<(), LoadError> {
        match self.format {
            Format::Parquet => columnar::read(self, wanted, sink),
            Format::Csv => separated::read(self, wanted, sink),
            Format::JsonLines => lines::read(self, wanted, sink),
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

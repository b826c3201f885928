//! Delta tables in folders: the rows of the newest version, data file by data file.
//!
//! A data file never changes, so what its rows are known by is which file of which table it is, and their numbers in it. Its content
//! would not do: two partitions may hold the same bytes.

mod deleted;
mod history;
mod log;
mod part;

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::DataType;
use sha2::{Digest, Sha256};

use super::{
    LoadError,
    apart::apart,
    places::MOST_FILES,
    source::{Columns, Source, Step, hexadecimal},
};
use history::{History, Plan};
use log::DataFile;
pub(super) use part::Part;

/// The newest version of a table.
#[derive(Debug)]
pub(super) struct Table {
    home: Arc<Home>,
    columns: Arc<[TableColumn]>,
    parts: Vec<Source>,
}

/// Which table it is, and where it lies.
#[derive(Debug)]
struct Home {
    name: String,
    /// What its files may not lead out of.
    root: PathBuf,
    folder: PathBuf,
    /// Stays the same for as long as there is the table.
    id: String,
}

/// A column of a table.
#[derive(Debug)]
struct TableColumn {
    name: String,
    /// What it is called in data files and in their partitions.
    physical: String,
    data_type: DataType,
    /// Whether its values stand in the log, one per data file, and not in the file.
    partition: bool,
}

/// Reads the log of the table in `folder`, which lies in `root` and is called `name`.
pub(super) fn open(name: &str, root: &Path, folder: &Path) -> Result<Table, LoadError> {
    let failed = |source| LoadError::Open { file: name.to_owned(), source };
    log::check(root, folder).map_err(failed)?;
    let log = apart(log::read(folder.to_owned(), MOST_FILES)).map_err(failed)?;
    let columns: Arc<[TableColumn]> = log.columns.into();
    let (name, root, folder) = (name.to_owned(), root.to_owned(), folder.to_owned());
    let home = Arc::new(Home { name, root, folder, id: log.id });
    let parts = log.files.into_iter().map(|file| part(&home, file, &columns)).collect::<Result<_, _>>()?;
    Ok(Table { home, columns, parts })
}

impl Table {
    /// Its data files, in the order in which they were written.
    pub(super) fn parts(&self) -> &[Source] {
        &self.parts
    }

    pub(super) fn columns(&self) -> Columns {
        found(&self.columns)
    }

    /// What to do so that all rows have been taken, each once. `mark` says up to which of its rows a data file has been taken, by
    /// what it is known by.
    pub(super) fn steps(
        &self,
        mark: &mut dyn FnMut(&str) -> Result<Option<u64>, LoadError>,
    ) -> Result<Vec<Step<'_>>, LoadError> {
        let history = History::read(&self.home.folder)
            .map_err(|source| LoadError::Open { file: self.home.name.clone(), source })?;
        let parts = || self.parts.iter().filter_map(|part| Some((part, part.as_part()?.file())));
        let here: HashMap<&str, &Source> = parts().map(|(part, file)| (file.path.as_str(), part)).collect();
        let files = parts().map(|(_, file)| file.clone()).collect();
        let plans =
            history.plan(&self.home.folder, files, &mut |path: &str| mark(&self.home.identity(path)))?;
        let step = |plan: Plan| -> Result<Step<'_>, LoadError> {
            Ok(match plan {
                Plan::Taken(path) => Step::Taken(self.home.identity(&path)),
                Plan::Read(file) => match here.get(file.path.as_str()) {
                    Some(&part) => Step::Read(part),
                    None => Step::Before(part(&self.home, file, &self.columns)?),
                },
                Plan::Rewritten(path) => match here.get(path.as_str()) {
                    Some(&part) => Step::Rewritten(part),
                    // Only files of the version are told to be so.
                    None => Step::Taken(self.home.identity(&path)),
                },
            })
        };
        plans.into_iter().map(step).collect()
    }
}

fn found(columns: &[TableColumn]) -> Columns {
    columns.iter().map(|column| (column.name.clone(), Some(column.data_type.clone()))).collect()
}

fn part(home: &Arc<Home>, file: DataFile, columns: &Arc<[TableColumn]>) -> Result<Source, LoadError> {
    let name = format!("{}/{}", home.name.trim_end_matches('/'), file.path);
    // What is a URL to others is a name without a meaning here: tables whose files lie elsewhere are not read.
    let stays = Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
    if !stays {
        return Err(LoadError::Outside { file: name });
    }
    let path = fs::canonicalize(home.folder.join(&file.path))
        .map_err(|source| LoadError::Open { file: name.clone(), source })?;
    if !path.starts_with(&home.root) {
        return Err(LoadError::Outside { file: name });
    }
    Ok(Source::part(name, path, Part::new(Arc::clone(home), Arc::clone(columns), file)))
}

impl Home {
    /// What the rows of a data file are known by, beside their numbers.
    fn identity(&self, path: &str) -> String {
        let mut digest = Sha256::new();
        for text in [self.id.as_str(), path] {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
        format!("delta:{}", hexadecimal(&digest.finalize()))
    }
}

//! Which data files took the place of which, so that rows that were only written anew are not taken again.
//!
//! `OPTIMIZE` and the like put the rows of files into others and say in the log that no row has changed. Where the files before have
//! been taken, those after them have been too. Files before that have not been taken are taken in their place, if they are still there.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde::Deserialize;

use super::{super::places::DELTA_LOG, log::DataFile};

/// What the commits say that are still in the log.
pub(super) struct History {
    /// In which of the commits a data file came, and what is known of it.
    added: HashMap<String, (usize, Added)>,
    commits: Vec<Commit>,
}

#[derive(Default)]
struct Commit {
    removed: Vec<String>,
    /// Whether a row has changed, come or gone.
    changes: bool,
}

/// What becomes of a data file.
pub(super) enum Plan {
    /// Its rows are read.
    Read(DataFile),
    /// Its rows are those of files that have been taken by then.
    Taken(String),
    /// The file of this path has rows that have been taken, beside others or changed.
    Rewritten(String),
}

/// A line of a commit, of which only this matters.
#[derive(Deserialize)]
struct Action {
    add: Option<Added>,
    remove: Option<Removed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Added {
    path: String,
    #[serde(default)]
    partition_values: HashMap<String, Option<String>>,
    #[serde(default)]
    modification_time: i64,
    data_change: bool,
    stats: Option<String>,
    deletion_vector: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    path: String,
    data_change: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: u64,
}

impl History {
    /// Reads the commits in the log of a table. What is no action in them is left to whoever needs it.
    pub(super) fn read(table: &Path) -> io::Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(table.join(DELTA_LOG))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if number.is_some_and(|number| number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit())) {
                names.push(name);
            }
        }
        names.sort();
        let mut history = Self { added: HashMap::new(), commits: Vec::new() };
        for name in names {
            let (number, mut commit) = (history.commits.len(), Commit::default());
            for line in BufReader::new(File::open(table.join(DELTA_LOG).join(name))?).lines() {
                let Ok(action) = serde_json::from_str::<Action>(&line?) else { continue };
                if let Some(mut added) = action.add {
                    added.path = decoded(&added.path);
                    commit.changes |= added.data_change;
                    history.added.insert(added.path.clone(), (number, added));
                }
                if let Some(removed) = action.remove {
                    commit.changes |= removed.data_change;
                    commit.removed.push(decoded(&removed.path));
                }
            }
            history.commits.push(commit);
        }
        Ok(history)
    }

    /// What to do with the data files of a version, in their order. `mark` says up to which of its rows a file has been taken.
    pub(super) fn plan<E>(
        &self,
        table: &Path,
        files: Vec<DataFile>,
        mark: &mut dyn FnMut(&str) -> Result<Option<u64>, E>,
    ) -> Result<Vec<Plan>, E> {
        let mut planner =
            Planner { history: self, table, mark, strangers: HashSet::new(), settled: HashSet::new() };
        let mut plans = Vec::new();
        for file in files {
            match planner.settle(&file)? {
                Some(settled) => plans.extend(settled),
                None => plans.push(Plan::Rewritten(file.path)),
            }
        }
        Ok(plans)
    }

    /// The commit that a file came with.
    fn commit(&self, path: &str) -> Option<&Commit> {
        self.commits.get(self.added.get(path)?.0)
    }

    /// The files whose place a file took.
    fn before(&self, path: &str) -> &[String] {
        self.commit(path).map_or(&[], |commit| commit.removed.as_slice())
    }

    fn written(&self, path: &str) -> Option<i64> {
        Some(self.added.get(path)?.1.modification_time)
    }

    /// How many rows a file has, if anything says so.
    fn rows(&self, path: &str) -> Option<u64> {
        let stats = self.added.get(path)?.1.stats.as_deref()?;
        Some(serde_json::from_str::<Stats>(stats).ok()?.num_records)
    }
}

/// Goes back from the files of a version to those that have been taken.
struct Planner<'a, E> {
    history: &'a History,
    table: &'a Path,
    mark: &'a mut dyn FnMut(&str) -> Result<Option<u64>, E>,
    /// Files of which neither they nor any before them have been taken.
    strangers: HashSet<String>,
    /// Files of which all rows have been taken, or will have been by the plan.
    settled: HashSet<String>,
}

impl<E> Planner<'_, E> {
    /// What leads to all rows of a file having been taken, each once; `None` if nothing does.
    fn settle(&mut self, file: &DataFile) -> Result<Option<Vec<Plan>>, E> {
        let (mut plans, mut settled, mut entered) = (Vec::new(), HashSet::new(), HashSet::new());
        // What is left to do, last first: a file, and whether those before it have been settled.
        let mut todo = vec![(file.path.clone(), false)];
        while let Some((path, follows)) = todo.pop() {
            if self.settled.contains(&path) || settled.contains(&path) {
                continue;
            }
            let known = (self.mark)(&path)?;
            if follows {
                plans.push(Plan::Taken(path.clone()));
            } else if known.is_some() || !self.has_known_before(&path)? {
                let rows = self.history.rows(&path);
                let complete = known.zip(rows).is_some_and(|(mark, rows)| mark.saturating_add(1) >= rows);
                match self.readable(&path) {
                    // Of the version itself all is read that is there, though it repeats what has been taken.
                    _ if path == file.path => plans.push(Plan::Read(file.clone())),
                    _ if complete => {}
                    Some(before) => plans.push(Plan::Read(before)),
                    // Who was cut off while he read a file has read on, long before the log forgot it.
                    None if known.is_some() && rows.is_none() => {}
                    None => return Ok(None),
                }
            } else {
                let Some(commit) = self.history.commit(&path) else { return Ok(None) };
                if commit.changes || !entered.insert(path.clone()) {
                    return Ok(None);
                }
                todo.push((path, true));
                let mut before: Vec<_> = commit.removed.iter().collect();
                // Rows are taken in the order in which they were written, as far as it is known.
                before.sort_by_key(|path| (self.history.written(path), *path));
                todo.extend(before.into_iter().rev().map(|path| (path.clone(), false)));
                continue;
            }
            settled.insert(path);
        }
        self.settled.extend(settled);
        Ok(Some(plans))
    }

    /// A file that is no longer one of the version, if it can still be read.
    fn readable(&self, path: &str) -> Option<DataFile> {
        let (_, added) = self.history.added.get(path)?;
        // Rows that a vector deletes are not in the file that took its place.
        let whole = added.deletion_vector.is_none() && self.table.join(path).is_file();
        whole.then(|| DataFile {
            path: path.to_owned(),
            values: added.partition_values.clone(),
            written: added.modification_time,
            deleted: None,
        })
    }

    /// Whether any file has been taken whose rows may be in this one.
    fn has_known_before(&mut self, path: &str) -> Result<bool, E> {
        let (mut todo, mut seen) = (vec![path], HashSet::new());
        while let Some(path) = todo.pop() {
            for before in self.history.before(path) {
                if self.strangers.contains(before) || !seen.insert(before.clone()) {
                    continue;
                }
                if (self.mark)(before)?.is_some() {
                    return Ok(true);
                }
                todo.push(before);
            }
        }
        self.strangers.extend(seen);
        Ok(false)
    }
}

/// A path without the escapes of URLs.
fn decoded(path: &str) -> String {
    let (bytes, mut text, mut at) = (path.as_bytes(), Vec::with_capacity(path.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped =
            (byte == b'%').then(|| u8::from_str_radix(path.get(at + 1..at + 3)?, 16).ok()).flatten();
        text.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&text).into_owned()
}

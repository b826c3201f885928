//! The two files: the one that is written, and the one before it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::Remove;

/// The file that is written, and at its side the one before it, with `.1` at the end of its name.
pub(super) struct Files {
    path: PathBuf,
    /// Bytes of each.
    most: u64,
    open: Option<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

/// What became of lines that were to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) rows: u64,
    /// Messages that could not be read, which are still there.
    pub(crate) messages: u64,
    /// The files that were written anew.
    pub(crate) files: Vec<String>,
}

impl Files {
    pub(super) fn new(path: &Path, max_bytes: u64) -> Self {
        Self { path: path.to_owned(), most: (max_bytes / 2).max(1), open: None }
    }

    /// Appends lines; how many of them are in the file.
    pub(super) fn append(&mut self, lines: &[String]) -> usize {
        let put = |line: &&String| {
            let put = self.put(line).is_ok();
            if !put {
                // The last line may be torn; whoever opens the file next ends it.
                self.open = None;
            }
            put
        };
        lines.iter().filter(put).count()
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if bytes > self.most {
            return Err(io::Error::other("one line is more than the file may have"));
        }
        if self.open()?.bytes + bytes > self.most {
            self.open = None;
            fs::rename(&self.path, previous(&self.path))?;
        }
        let open = self.open()?;
        open.file.write_all(format!("{line}\n").as_bytes())?;
        open.bytes += bytes;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
            let mut bytes = file.metadata()?.len();
            if bytes > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    // A crash has cut the last line off.
                    file.write_all(b"\n")?;
                    bytes += 1;
                }
            }
            self.open = Some(Open { file, bytes });
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("no file"))
    }

    /// Removes lines from both files. A line that cannot be read goes too: it may be one of them.
    pub(super) fn remove(&mut self, remove: &Remove) -> io::Result<Removed> {
        self.open = None;
        let mut removed = Removed::default();
        for path in [previous(&self.path), self.path.clone()] {
            let Some(file) = existing(&path)? else { continue };
            let next = path.with_added_extension("next");
            let (mut kept, mut gone) = (BufWriter::new(File::create(&next)?), false);
            each(file, |line| {
                let fate = remove.fate(line);
                match fate {
                    Fate::Row => removed.rows += 1,
                    Fate::Message => removed.messages += 1,
                    Fate::Torn | Fate::Stays => {}
                }
                gone |= matches!(fate, Fate::Row | Fate::Torn);
                if matches!(fate, Fate::Row | Fate::Torn) { Ok(()) } else { kept.write_all(line) }
            })?;
            if !gone {
                fs::remove_file(&next)?;
                continue;
            }
            kept.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&next, &path)?;
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            removed.files.push(path.display().to_string());
        }
        Ok(removed)
    }
}

/// What a removal does to a line.
enum Fate {
    Row,
    /// It stays, and may be about the keys.
    Message,
    Torn,
    Stays,
}

impl Remove {
    fn fate(&self, line: &[u8]) -> Fate {
        let Ok(Value::Object(line)) = serde_json::from_slice(line) else { return Fate::Torn };
        if line.get("set").and_then(Value::as_str) != Some(&self.set) {
            return Fate::Stays;
        }
        let Some((names, keys)) = &self.keys else { return Fate::Row };
        let rows = match (line.get("keys"), line.get("row")) {
            // It came in the form that a graph takes, and became rows with these keys.
            (Some(Value::Array(became)), _) => &became[..],
            (_, Some(row)) => std::slice::from_ref(row),
            (_, None) => &[],
        };
        let wanted = |row: &Value| {
            let key = || names.iter().map(|name| row.get(name).unwrap_or(&Value::Null));
            keys.iter().any(|wanted| key().eq(wanted.iter()))
        };
        match rows {
            [] => Fate::Message,
            rows if rows.iter().any(wanted) => Fate::Row,
            _ => Fate::Stays,
        }
    }
}

/// How many rows and messages lie at `path`.
pub(crate) fn rows(path: &Path) -> io::Result<u64> {
    let mut rows = 0;
    for path in [previous(path), path.to_owned()] {
        if let Some(file) = existing(&path)? {
            each(file, |_| {
                rows += 1;
                Ok(())
            })?;
        }
    }
    Ok(rows)
}

fn previous(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every line that is not empty, with its end.
fn each(file: File, mut told: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if !line.trim_ascii().is_empty() {
            told(&line)?;
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(set: &str, id: u64) -> String {
        json!({ "set": set, "reason": "r", "row": { "id": id, "text": "x".repeat(20) } }).to_string()
    }

    fn ids(path: &Path) -> Vec<u64> {
        let mut ids = Vec::new();
        for path in [previous(path), path.to_owned()] {
            let text = fs::read_to_string(path).unwrap_or_default();
            ids.extend(
                text.lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["row"]["id"].as_u64()),
            );
        }
        ids
    }

    #[test]
    fn the_oldest_rows_go_when_there_is_no_more_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/aside");
        let each = line("a", 10).len() as u64 + 1;
        let mut files = Files::new(&path, 6 * each);
        for id in 10..20 {
            assert_eq!(files.append(&[line("a", id)]), 1);
        }
        assert_eq!(ids(&path), [16, 17, 18, 19]);
        assert_eq!(rows(&path).unwrap(), 4);
        let bytes = |path: &Path| path.metadata().unwrap().len();
        assert!(bytes(&path) + bytes(&previous(&path)) <= 6 * each);
        let long = line("a", 1) + &" ".repeat(4 * each as usize);
        assert_eq!(files.append(&[long, line("a", 20)]), 1, "a line that is too long takes no other with it");
        assert_eq!(ids(&path), [16, 17, 18, 19, 20]);
    }

    #[test]
    fn a_torn_line_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aside");
        fs::write(&path, line("a", 1) + "\n" + &line("a", 2)[..20]).unwrap();
        let mut files = Files::new(&path, 1 << 20);
        assert_eq!(files.append(&[line("a", 3)]), 1);
        assert_eq!(ids(&path), [1, 3]);
        let keys = Some((vec!["id".to_owned()], vec![vec![json!(3)]]));
        let removed = files.remove(&Remove { set: "a".to_owned(), keys }).unwrap();
        assert_eq!((removed.rows, ids(&path)), (1, vec![1]));
        assert_eq!(rows(&path).unwrap(), 1, "what is torn may be of the key");
    }

    #[test]
    fn removing_is_of_one_set_and_of_whole_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aside");
        let mut files = Files::new(&path, 1 << 20);
        let message = json!({ "set": "a", "message": "?" }).to_string();
        assert_eq!(files.append(&[line("a", 1), line("b", 1), line("a", 2), message]), 4);
        let keys = Some((vec!["id".to_owned()], vec![vec![json!(1)], vec![json!(9)]]));
        let removed = files.remove(&Remove { set: "a".to_owned(), keys }).unwrap();
        assert_eq!(removed, Removed { rows: 1, messages: 1, files: vec![path.display().to_string()] });
        assert_eq!(ids(&path), [1, 2]);
        assert_eq!(files.append(&[line("a", 3)]), 1);
        assert_eq!(files.remove(&Remove { set: "a".to_owned(), keys: None }).unwrap().rows, 3);
        assert_eq!(ids(&path), [1], "of set b");
    }

    #[test]
    fn what_passed_a_graph_is_known_by_the_keys_that_it_got_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(&dir.path().join("aside"), 1 << 20);
        let line = |keys: Value| json!({ "set": "a", "row": { "id": 1 }, "keys": keys }).to_string();
        let lines = [line(json!([{ "id": 2 }, { "id": 3 }])), line(json!([{ "id": 4 }])), line(json!([]))];
        assert_eq!(files.append(&lines), 3);
        let mut removed = |id: u64| {
            let keys = Some((vec!["id".to_owned()], vec![vec![json!(id)]]));
            let removed = files.remove(&Remove { set: "a".to_owned(), keys }).unwrap();
            (removed.rows, removed.messages)
        };
        assert_eq!([1, 3, 2, 4].map(&mut removed), [(0, 1), (1, 1), (0, 1), (1, 1)]);
    }

    #[test]
    fn what_cannot_be_written_is_not_counted_as_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aside");
        fs::create_dir(&path).unwrap();
        assert_eq!(Files::new(&path, 1 << 20).append(&[line("a", 1)]), 0);
    }
}

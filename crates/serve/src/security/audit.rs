//! What callers changed, and what they were refused: one JSON object per line, each with the digest of the one before.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Asked, Denied};

/// Refusals that are written down per second; whoever tries keys must not fill the disk. Changes are all written down.
const REFUSALS: u32 = 20;
/// Of the end of the file so much is read to find its last line.
const TAIL: u64 = 64 << 10;
/// Characters of what a caller sent that are written down.
const LONGEST: usize = 256;

/// A file that lines are added to.
pub(super) struct Audit(Mutex<Book>);

struct Book {
    file: File,
    /// The digest of the last line; none where it is not known how the file ends.
    before: Option<String>,
    /// The second that refusals are counted in, and how many there were.
    second: (Instant, u32),
    /// Refusals since the last line that was written.
    left_out: u64,
}

impl Audit {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        // Lines of two writers would each name one before that is not.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process writes it"),
            TryLockError::Error(error) => error,
        })?;
        let before = Some(last(&mut file)?);
        Ok(Self(Mutex::new(Book { file, before, second: (Instant::now(), 0), left_out: 0 })))
    }

    /// Writes down what a caller was refused.
    pub(super) fn refused(&self, asked: &Asked<'_>, caller: Option<&str>, denied: &Denied) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.has_room() {
            book.note(line(asked, caller, denied.code()));
        } else {
            book.left_out += 1;
        }
    }

    /// Writes down what a caller changes: a [`line`] with what more is known.
    pub(super) fn changed(&self, line: Value) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(line);
    }
}

/// What is written down of a request.
pub(super) fn line(asked: &Asked<'_>, caller: Option<&str>, outcome: &str) -> Value {
    let id = asked.headers.get("x-request-id").and_then(|id| id.to_str().ok()).map(text);
    json!({
        "at": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        "caller": caller,
        "method": text(asked.method.as_str()),
        "path": text(asked.path),
        "from": asked.from.map(|from| from.to_string()),
        "request_id": id,
        "outcome": outcome,
    })
}

/// As much of what a caller sent as is written down.
pub(super) fn text(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

impl Book {
    fn has_room(&mut self) -> bool {
        let (since, count) = &mut self.second;
        if since.elapsed() >= Duration::from_secs(1) {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= REFUSALS
    }

    fn note(&mut self, mut line: Value) {
        if let Err(error) = self.write(&mut line) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }

    fn write(&mut self, line: &mut Value) -> io::Result<()> {
        // Taken until the line is there: what is written of one that fails is a line like another.
        line["before"] = match self.before.take() {
            Some(before) => before,
            None => last(&mut self.file)?,
        }
        .into();
        if self.left_out > 0 {
            line["left_out"] = self.left_out.into();
        }
        let mut text = line.to_string();
        let digest = hex(text.as_bytes());
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        (self.before, self.left_out) = (Some(digest), 0);
        Ok(())
    }
}

/// The digest of the last line, which is ended where a crash or a full disk has cut it.
fn last(file: &mut File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    Read::take(&mut *file, TAIL).read_to_end(&mut tail)?;
    if tail.last().is_some_and(|byte| *byte != b'\n') {
        file.write_all(b"\n")?;
    }
    let line = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(if line.is_empty() { String::new() } else { hex(line) })
}

fn hex(line: &[u8]) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::security::Role;

    #[test]
    fn every_line_names_the_one_before_also_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let headers = HeaderMap::from_iter([("x-request-id".parse().unwrap(), "r-1".parse().unwrap())]);
        let asked = Asked { method: &Method::POST, path: "/v2/logging", headers: &headers, from: None };
        for start in 0..3 {
            let audit = Audit::open(&file).unwrap();
            audit.changed(line(&asked, Some("ops"), "allowed"));
            let denied = Denied::Forbidden { needs: Role::Admin };
            for _ in 0..REFUSALS + 5 {
                audit.refused(&asked, None, &denied);
            }
            if start == 1 {
                // As a crash leaves it.
                let text = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, text.trim_end()).unwrap();
            }
            assert!(Audit::open(&file).is_err(), "two would tell two stories");
            if start == 2 {
                // As a full disk leaves it.
                let mut book = audit.0.lock().unwrap();
                book.file.write_all(b"{\"before\":").unwrap();
                book.before = None;
                drop(book);
                audit.changed(line(&asked, Some("ops"), "allowed"));
            }
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3 * (1 + REFUSALS as usize) + 2);
        let mut before = String::new();
        for line in lines {
            let Ok(told) = serde_json::from_str::<Value>(line) else {
                before = hex(line.as_bytes());
                continue;
            };
            assert_eq!((&told["before"], &told["request_id"]), (&json!(before), &json!("r-1")));
            before = hex(line.as_bytes());
        }
    }
}

//! CSV with a header. An empty field is null.

use std::{fs::File, io::BufReader};

use csv::{Reader, ReaderBuilder, StringRecord};

use super::{
    At, LoadError, Sink,
    infer::Guess,
    source::{Columns, Source},
    text::TextRows,
};
use crate::set::Column;

pub(super) fn columns(source: &Source, rows: u64) -> Result<Columns, LoadError> {
    let (mut reader, names) = reader(source)?;
    let mut guesses = vec![Guess::default(); names.len()];
    let mut record = StringRecord::new();
    let mut read = 0;
    while read < rows && next(source, &mut reader, &mut record)?.is_some() {
        for (guess, text) in guesses.iter_mut().zip(&record).filter(|(_, text)| !text.is_empty()) {
            *guess = guess.and(Guess::of(text));
        }
        read += 1;
    }
    Ok(names.into_iter().zip(guesses).map(|(name, guess)| (name, guess.data_type())).collect())
}

pub(super) fn read(source: &Source, wanted: &[Column], sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let (mut reader, names) = reader(source)?;
    let columns = source.locate(wanted, &names)?;
    let mut rows = TextRows::new(source, wanted);
    let mut record = StringRecord::new();
    while let Some(line) = next(source, &mut reader, &mut record)? {
        for (at, &column) in columns.iter().enumerate() {
            let text = record.get(column).filter(|text| !text.is_empty());
            rows.push(at, text, line)?;
        }
        rows.end_row(line, sink)?;
    }
    rows.flush(sink)
}

/// The reader behind its header, and the header's names.
fn reader(source: &Source) -> Result<(Reader<BufReader<File>>, Vec<String>), LoadError> {
    let mut reader = ReaderBuilder::new().from_reader(BufReader::new(source.file()?));
    let header = reader.headers().map_err(|error| malformed(source, &error))?;
    let names: Vec<String> = header.iter().map(str::to_owned).collect();
    let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
    match twice {
        Some((_, name)) => Err(source.malformed(At::Line(1), format!("column `{name}` is named twice"))),
        None => Ok((reader, names)),
    }
}

/// Reads one record; answers the line it starts on, `None` at the end.
fn next(source: &Source, reader: &mut Reader<BufReader<File>>, record: &mut StringRecord) -> Result<Option<u64>, LoadError> {
    let more = reader.read_record(record).map_err(|error| malformed(source, &error))?;
    Ok(more.then(|| record.position().map_or(0, csv::Position::line)))
}

fn malformed(source: &Source, error: &csv::Error) -> LoadError {
    let at = error.position().map_or(At::File, |position| At::Line(position.line()));
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("field {} is not UTF-8", err.field() + 1),
        _ => error.to_string(),
    };
    source.malformed(at, problem)
}

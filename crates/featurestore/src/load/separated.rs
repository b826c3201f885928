//! CSV with a header. An empty field is null.

use std::{
    fs::File,
    io::{BufReader, Read},
};

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
    let mut rows = TextRows::new(source, wanted, locate);
    let mut record = StringRecord::new();
    while let Some(start) = next(source, &mut reader, &mut record)? {
        for (at, &column) in columns.iter().enumerate() {
            let text = record.get(column).filter(|text| !text.is_empty());
            rows.push(at, text, start)?;
        }
        rows.end_row(start, sink)?;
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

/// Reads one record; answers the byte after the record before it, `None` at the end.
fn next(
    source: &Source,
    reader: &mut Reader<BufReader<File>>,
    record: &mut StringRecord,
) -> Result<Option<u64>, LoadError> {
    let more = reader.read_record(record).map_err(|error| malformed(source, &error))?;
    Ok(more.then(|| record.position().map_or(0, csv::Position::byte)))
}

fn malformed(source: &Source, error: &csv::Error) -> LoadError {
    let at = error.position().map_or(At::File, |position| locate(source, position.byte()));
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("field {} is not UTF-8", err.field() + 1),
        _ => error.to_string(),
    };
    source.malformed(at, problem)
}

/// The line of the record that starts behind byte `start`. Between records lie line ends and empty lines, and of a CR LF
/// the reader leaves the LF for the next record: counting its lines would be off by some.
fn locate(source: &Source, start: u64) -> At {
    let Ok(file) = source.file() else { return At::File };
    let mut line = 1;
    for (at, byte) in (0_u64..).zip(BufReader::new(file).bytes()) {
        match byte {
            Ok(b'\n') => line += 1,
            Ok(b'\r') => {}
            Ok(_) if at < start => {}
            Ok(_) => break,
            Err(_) => return At::File,
        }
    }
    At::Line(line)
}

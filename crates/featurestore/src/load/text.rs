//! Columns built from text, value by value.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{At, BATCH, LoadError, Sink, source::Source};
use crate::{
    RowProblem,
    cell::{bits_of_text, column_of_bits},
    set::Column,
};

/// Collects rows of text values and hands them on as typed batches.
pub(super) struct TextRows<'a> {
    source: &'a Source,
    wanted: &'a [Column],
    schema: SchemaRef,
    columns: Vec<Values>,
    /// Where each row starts: a line, or whatever `place` makes one of.
    starts: Vec<u64>,
    place: Locate,
}

/// Tells where a row stands from where it starts. Asked only about rows at fault, so it may take its time.
pub(super) type Locate = fn(&Source, u64) -> At;

enum Values {
    Bits(Vec<Option<u64>>),
    Text(StringBuilder),
}

impl<'a> TextRows<'a> {
    pub(super) fn new(source: &'a Source, wanted: &'a [Column], place: Locate) -> Self {
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), true);
        let schema = Arc::new(Schema::new(wanted.iter().map(field).collect::<Vec<_>>()));
        let values = |column: &Column| match column.data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Values::Text(StringBuilder::new()),
            _ => Values::Bits(Vec::new()),
        };
        Self {
            source,
            wanted,
            schema,
            columns: wanted.iter().map(values).collect(),
            starts: Vec::new(),
            place,
        }
    }

    /// Sets the next value of wanted column `column` in the row that [`TextRows::end_row`] ends.
    pub(super) fn push(&mut self, column: usize, text: Option<&str>, start: u64) -> Result<(), LoadError> {
        match (&mut self.columns[column], text) {
            (Values::Text(texts), text) => texts.append_option(text),
            (Values::Bits(bits), None) => bits.push(None),
            (Values::Bits(bits), Some(text)) => match bits_of_text(text, &self.wanted[column].data_type) {
                Some(cell) => bits.push(Some(cell)),
                None => return Err(self.unfit(column, text, start)),
            },
        }
        Ok(())
    }

    /// The error for a value that does not fit its column.
    pub(super) fn unfit(&self, column: usize, value: &str, start: u64) -> LoadError {
        const LONGEST: usize = 64;
        let Column { name, data_type } = &self.wanted[column];
        let mut value = value.to_owned();
        if let Some((at, _)) = value.char_indices().nth(LONGEST) {
            value.truncate(at);
            value.push('…');
        }
        let problem = RowProblem::Value { column: name.clone(), value, data_type: data_type.clone() };
        LoadError::Row { place: self.source.place((self.place)(self.source, start)), problem }
    }

    /// Ends a row that started at `start`; every column has been pushed once.
    pub(super) fn end_row(&mut self, start: u64, sink: &mut Sink<'_>) -> Result<(), LoadError> {
        self.starts.push(start);
        if self.starts.len() >= BATCH { self.flush(sink) } else { Ok(()) }
    }

    /// Hands on what has been collected.
    pub(super) fn flush(&mut self, sink: &mut Sink<'_>) -> Result<(), LoadError> {
        if self.starts.is_empty() {
            return Ok(());
        }
        let columns = self.columns.iter_mut().zip(self.wanted).map(|(values, column)| match values {
            Values::Text(texts) => arrow::compute::cast(&texts.finish(), &column.data_type).ok(),
            Values::Bits(bits) => column_of_bits(&std::mem::take(bits), &column.data_type),
        });
        let malformed = |problem: String| self.source.malformed(At::File, problem);
        // A definition has only types that text can be read as.
        let columns: Option<Vec<ArrayRef>> = columns.collect();
        let columns = columns.ok_or_else(|| malformed("a column has a type that text cannot have".into()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.starts.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| malformed(error.to_string()))?;
        let starts = std::mem::take(&mut self.starts);
        sink(&batch, &|row| starts.get(row).map_or(At::File, |&start| (self.place)(self.source, start)))
    }
}

//! One data file of a table.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array},
    compute::{CastOptions, cast_with_options, take},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use parquet::arrow::{ProjectionMask, arrow_reader::RowSelection};

use super::{Home, TableColumn, found, log::DataFile};
use crate::{
    load::{
        At, BATCH, LoadError, Sink, columnar,
        source::{Columns, Source},
    },
    set::Column,
};

/// What the log says of a data file.
#[derive(Debug)]
pub(in crate::load) struct Part {
    home: Arc<Home>,
    columns: Arc<[TableColumn]>,
    file: DataFile,
}

/// Where the values of a column come from.
enum From {
    /// The file, by this name.
    File(String, DataType),
    /// Each row has that of this one row.
    One(ArrayRef),
}

impl Part {
    pub(super) fn new(home: Arc<Home>, columns: Arc<[TableColumn]>, file: DataFile) -> Self {
        Self { home, columns, file }
    }

    pub(super) fn file(&self) -> &DataFile {
        &self.file
    }

    /// What its rows are known by, beside their numbers.
    pub(in crate::load) fn identity(&self) -> String {
        self.home.identity(&self.file.path)
    }

    pub(in crate::load) fn columns(&self) -> Columns {
        found(&self.columns)
    }

    /// Reads the wanted columns of the table. A file that is older than a column has null there. A row keeps its number, whichever
    /// before it have been deleted.
    pub(in crate::load) fn read(
        &self,
        source: &Source,
        wanted: &[Column],
        sink: &mut Sink<'_>,
    ) -> Result<(), LoadError> {
        let names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let wanted = source.locate(wanted, &names)?;
        let builder = columnar::builder(source)?;
        let stored = |name: &str| builder.schema().fields().iter().position(|field| field.name() == name);
        let (mut roots, mut from) = (Vec::new(), Vec::new());
        for column in wanted.iter().map(|&at| &self.columns[at]) {
            from.push((
                column.name.clone(),
                match stored(&column.physical).filter(|_| !column.partition) {
                    Some(root) => {
                        roots.push(root);
                        From::File(column.physical.clone(), column.data_type.clone())
                    }
                    None => From::One(self.value(column).map_err(|error| source.malformed(At::File, error))?),
                },
            ));
        }
        let end = builder.metadata().file_metadata().num_rows().unsigned_abs();
        let deleted =
            self.file.deleted.as_ref().map(|rows| rows.read(&self.home.root, &self.home.folder, end));
        let deleted =
            deleted.transpose().map_err(|error| source.malformed(At::File, error))?.unwrap_or_default();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder.with_row_selection(others(&deleted, end)).with_projection(mask);
        let reader = reader.with_batch_size(BATCH).build();
        let reader = reader.map_err(|error| source.malformed(At::File, error))?;
        // How many rows stand before each that is deleted, and are not.
        let before: Vec<u64> = deleted.iter().zip(0..).map(|(row, deleted)| row - deleted).collect();
        let number = |row: u64| row + before.partition_point(|before| *before <= row) as u64;
        let mut first = 0;
        for batch in reader {
            let batch = batch.and_then(|batch| logical(&batch, &from));
            let batch = batch.map_err(|error| source.malformed(At::File, error))?;
            sink(&batch, &|row| At::Row(number(first + row as u64) + 1))?;
            first += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// The one value that a column has in all rows, if it does not stand in the file.
    fn value(&self, column: &TableColumn) -> Result<ArrayRef, ArrowError> {
        if !column.partition {
            return Ok(new_null_array(&column.data_type, 1));
        }
        let value = self.file.values.get(&column.physical).ok_or_else(|| {
            ArrowError::SchemaError(format!("the log has no value of partition column `{}`", column.name))
        })?;
        // The protocol has it so: an empty text is null, whatever the type.
        let text: ArrayRef =
            Arc::new(StringArray::from(vec![value.as_deref().filter(|text| !text.is_empty())]));
        cast_with_options(&text, &column.data_type, &STRICT)
    }
}

/// All rows but some.
fn others(deleted: &[u64], end: u64) -> RowSelection {
    let starts = std::iter::once(0).chain(deleted.iter().map(|row| row + 1));
    let ends = deleted.iter().copied().chain([end]);
    let ranges = starts.zip(ends).map(|(start, end)| start as usize..end as usize);
    RowSelection::from_consecutive_ranges(ranges.filter(|range| !range.is_empty()), end as usize)
}

const STRICT: CastOptions<'_> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// A batch of the file, with the columns that the table has.
fn logical(batch: &RecordBatch, columns: &[(String, From)]) -> Result<RecordBatch, ArrowError> {
    let rows = batch.num_rows();
    let column = |(name, from): &(String, From)| {
        let column = match from {
            From::One(value) => take(value, &UInt32Array::from(vec![0; rows]), None)?,
            From::File(physical, data_type) => {
                let found = batch
                    .column_by_name(physical)
                    .ok_or_else(|| ArrowError::SchemaError(format!("column `{physical}` was not read")))?;
                cast_with_options(found, data_type, &STRICT)?
            }
        };
        Ok((Field::new(name, column.data_type().clone(), true), column))
    };
    let (fields, columns): (Vec<_>, Vec<_>) =
        columns.iter().map(column).collect::<Result<Vec<_>, ArrowError>>()?.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

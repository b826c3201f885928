//! Parquet.

use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{
    At, BATCH, LoadError, Sink,
    source::{Columns, Source},
};
use crate::set::Column;

pub(super) fn columns(source: &Source) -> Result<Columns, LoadError> {
    let fields = builder(source)?.schema().fields().clone();
    Ok(fields.iter().map(|field| (field.name().clone(), Some(field.data_type().clone()))).collect())
}

pub(super) fn read(source: &Source, wanted: &[Column], sink: &mut Sink<'_>) -> Result<(), LoadError> {
    let builder = builder(source)?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let roots = source.locate(wanted, &names)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build();
    let reader = reader.map_err(|error| source.malformed(At::File, error))?;
    let mut first = 1;
    for batch in reader {
        let batch = batch.map_err(|error| source.malformed(At::File, error))?;
        sink(&batch, &|row| At::Row(first + row as u64))?;
        first += batch.num_rows() as u64;
    }
    Ok(())
}

pub(super) fn builder(source: &Source) -> Result<ParquetRecordBatchReaderBuilder<std::fs::File>, LoadError> {
    ParquetRecordBatchReaderBuilder::try_new(source.file()?)
        .map_err(|error| source.malformed(At::File, error))
}

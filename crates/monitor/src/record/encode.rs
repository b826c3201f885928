//! Batches of the log as a Parquet file, and what a file says of itself.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch, new_null_array},
    compute::interleave_record_batch,
    datatypes::{DataType, Field, Schema, TimestampMicrosecondType},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, SortingColumn},
        properties::WriterProperties,
    },
    schema::types::ColumnPath,
};

use super::layout::{AT, REQUEST_ID};

/// Rows per row group: what a reader can skip by times and ids.
const GROUP_ROWS: usize = 64 * 1024;
/// Rows that are put in order at once.
const CHUNK_ROWS: usize = 8192;
/// The share of other ids for which a file's filter says that it may have them.
const FALSE_POSITIVES: f64 = 0.01;
/// The names of the files whose rows this one has, as a JSON array.
const REPLACES: &str = "millstream.replaces";

/// A file with the rows of all batches, of one schema, in the order of their times.
pub(super) fn encode(batches: &[RecordBatch], replaces: &[String]) -> Result<Vec<u8>, ParquetError> {
    let Some(first) = batches.first() else { return Err(ParquetError::General("no rows".to_owned())) };
    let times = |batch: &RecordBatch| {
        let times = batch.column_by_name(AT).and_then(|at| at.as_primitive_opt::<TimestampMicrosecondType>());
        times.map(|times| times.values().to_vec()).unwrap_or_default()
    };
    let mut order: Vec<(i64, (usize, usize))> = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        order.extend(times(batch).into_iter().enumerate().map(|(row, at)| (at, (number, row))));
    }
    // By place where times are equal: the rows of a request stay together.
    order.sort_unstable();
    let references: Vec<&RecordBatch> = batches.iter().collect();
    let properties = properties(first, order.len(), replaces)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), first.schema(), Some(properties))?;
    for chunk in order.chunks(CHUNK_ROWS) {
        let from: Vec<(usize, usize)> = chunk.iter().map(|(_, from)| *from).collect();
        writer.write(&interleave_record_batch(&references, &from)?)?;
    }
    writer.into_inner()
}

/// Whether Parquet can hold values of this type: every type in it is tried, since a list of nothing hides what it is a list of.
pub(super) fn holds(data_type: &DataType) -> bool {
    let inner: Vec<&DataType> = match data_type {
        // The library would panic.
        DataType::Union(..) => return false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        _ => Vec::new(),
    };
    let tried = || -> Result<(), ParquetError> {
        let schema = Arc::new(Schema::new(vec![Field::new("tried", data_type.clone(), true)]));
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None)?;
        writer.write(&RecordBatch::try_new(schema, vec![new_null_array(data_type, 1)])?)?;
        writer.into_inner().map(drop)
    };
    inner.into_iter().all(holds) && tried().is_ok()
}

fn properties(
    batch: &RecordBatch,
    rows: usize,
    replaces: &[String],
) -> Result<WriterProperties, ParquetError> {
    let id = ColumnPath::from(REQUEST_ID);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_column_bloom_filter_enabled(id.clone(), true)
        .set_column_bloom_filter_fpp(id.clone(), FALSE_POSITIVES)
        .set_column_bloom_filter_max_ndv(id, rows.clamp(1, GROUP_ROWS) as u64);
    // The columns before it are flat, so its number is the same among the leaves.
    if let Some(at) = batch.schema_ref().index_of(AT).ok().and_then(|at| i32::try_from(at).ok()) {
        let ascending = SortingColumn { column_idx: at, descending: false, nulls_first: false };
        properties = properties.set_sorting_columns(Some(vec![ascending]));
    }
    if !replaces.is_empty() {
        let names = serde_json::to_string(replaces).map_err(|error| ParquetError::External(error.into()))?;
        properties = properties
            .set_key_value_metadata(Some(vec![KeyValue { key: REPLACES.to_owned(), value: Some(names) }]));
    }
    Ok(properties.build())
}

/// The names of the files whose rows a file has.
pub(super) fn replaces(metadata: &ParquetMetaData) -> Result<Vec<String>, ParquetError> {
    let pairs = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let names = pairs.filter(|pair| pair.key == REPLACES).find_map(|pair| pair.value.as_deref());
    let names = names.map(serde_json::from_str).transpose();
    names.map(Option::unwrap_or_default).map_err(|error| ParquetError::External(error.into()))
}

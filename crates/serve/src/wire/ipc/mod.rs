//! Arrow IPC stream bodies, checked frame by frame before Arrow reads them.
//!
//! Arrow's reader trusts much of a stream's metadata: it panics on types it does not know and on buffers that are
//! too short. So the frames are walked here, every field, node and buffer is held against what the input schema
//! asks for, and only then are the columns built, with Arrow's own validation of offsets and UTF-8 on top.

mod frames;
mod layout;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    buffer::Buffer,
    compute::concat_batches,
    datatypes::{BinaryViewType, ByteViewType, DataType, Field, Fields, Schema, SchemaRef, StringViewType},
    error::ArrowError,
    ipc::{self, MessageHeader, MetadataVersion, reader::read_record_batch, writer::StreamWriter},
};
use millstream_graph::{SchemaError, suggest};

use self::frames::{Frame, Frames};
use super::{DecodeCode, DecodeError, DecodeLimits};

/// Reads Arrow IPC streams into record batches of one schema. Built once per graph and shared by `Arc`.
///
/// The stream has the fields of the schema by name, in any order, of the same types; text and binary may come in
/// any of Arrow's layouts except dictionaries, and fields that may be null may be left out. Unknown fields are refused
/// whatever the limits say, because their types are not known to be readable. Bodies are uncompressed. Several batches
/// become one.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    limits: DecodeLimits,
}

impl Decoder {
    /// A decoder for the rows of a schema.
    ///
    /// # Errors
    /// When a type cannot be read; all such fields at once.
    pub fn new(schema: SchemaRef, limits: DecodeLimits) -> Result<Self, SchemaError> {
        SchemaError::collect(
            schema.fields().iter().filter(|field| !layout::is_readable(field.data_type())).map(|field| {
                let (name, data_type) = (field.name(), field.data_type());
                SchemaError::new(format!("field `{name}`: type {data_type} cannot be read from Arrow IPC"))
            }),
        )?;
        Ok(Self { schema, limits })
    }

    /// The schema of every batch that this decoder makes.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads one body. Columns point into the body where its alignment allows.
    ///
    /// # Errors
    /// When the body is no stream of the schema's fields, or beyond the limits.
    pub fn decode(&self, body: impl Into<Buffer>) -> Result<RecordBatch, DecodeError> {
        let body = body.into();
        self.limits.check_length(&body)?;
        // What is known to make Arrow panic was refused before Arrow sees it. Should there be more, it is still the
        // body that is at fault.
        catch_unwind(AssertUnwindSafe(|| self.read(&body)))
            .unwrap_or_else(|_| Err(malformed("body cannot be read")))
    }

    fn read(&self, body: &Buffer) -> Result<RecordBatch, DecodeError> {
        let mut frames = Frames::new(body);
        let sent = match frames.next()? {
            Some(frame) => Sent::new(&frame, self)?,
            None => return Err(DecodeError::new(DecodeCode::Truncated, "body is empty")),
        };
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(frame) = frames.next()? {
            let batch = sent.batch(&frame, self.limits.rows - rows)?;
            self.check_nulls(&batch, &sent, rows)?;
            rows += batch.num_rows();
            batches.push(self.reorder(&batch, &sent)?);
        }
        match batches.len() {
            1 => Ok(batches.remove(0)),
            _ => concat_batches(&self.schema, &batches).map_err(|error| unreadable(&error)),
        }
    }

    /// Refuses nulls where none may be. `before` is the number of rows in earlier batches.
    fn check_nulls(&self, batch: &RecordBatch, sent: &Sent, before: usize) -> Result<(), DecodeError> {
        for (column, &position) in batch.columns().iter().zip(&sent.positions) {
            let field = self.schema.field(position);
            if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0 && !field.is_nullable())
            {
                let row = (0..nulls.len()).find(|&row| nulls.is_null(row));
                let mut error =
                    DecodeError::new(DecodeCode::WrongType, "must not be null").at_field(field.name());
                error.row = row.map(|row| before + row);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The batch as the schema has it: its order, its layouts, its nulls for what may be absent.
    fn reorder(&self, batch: &RecordBatch, sent: &Sent) -> Result<RecordBatch, DecodeError> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (column, &position) in batch.columns().iter().zip(&sent.positions) {
            let wanted = self.schema.field(position);
            columns[position] = Some(self.convert(column, wanted)?);
        }
        let columns = columns
            .into_iter()
            .zip(self.schema.fields())
            .map(|(column, field)| column.map_or_else(|| self.absent(field, batch.num_rows()), Ok));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| unreadable(&error))
    }

    fn convert(&self, column: &ArrayRef, wanted: &Field) -> Result<ArrayRef, DecodeError> {
        if column.data_type() == wanted.data_type() {
            return Ok(Arc::clone(column));
        }
        // Many views may share the same bytes: written out, a few bytes each could become any amount.
        let bytes = match column.data_type() {
            DataType::Utf8View => viewed_bytes::<StringViewType>(column),
            DataType::BinaryView => viewed_bytes::<BinaryViewType>(column),
            _ => 0,
        };
        if bytes > self.limits.body_bytes as u64 {
            let message = format!("text is longer than {} bytes", self.limits.body_bytes);
            return Err(DecodeError::new(DecodeCode::TooLarge, message).at_field(wanted.name()));
        }
        arrow::compute::cast(column, wanted.data_type()).map_err(|error| {
            DecodeError::new(DecodeCode::OutOfRange, error.to_string()).at_field(wanted.name())
        })
    }

    fn absent(&self, field: &Field, rows: usize) -> Result<ArrayRef, DecodeError> {
        if layout::bytes_per_row(field.data_type()).saturating_mul(rows) > self.limits.absent_bytes {
            let message = format!("absent values need more than {} bytes", self.limits.absent_bytes);
            return Err(DecodeError::new(DecodeCode::TooLarge, message).at_field(field.name()));
        }
        Ok(arrow::array::new_null_array(field.data_type(), rows))
    }
}

fn viewed_bytes<T: ByteViewType>(column: &ArrayRef) -> u64 {
    // The low 32 bits of a view are its length.
    column
        .as_byte_view_opt::<T>()
        .map_or(0, |views| views.views().iter().map(|view| u64::from(*view as u32)).sum())
}

/// What a stream says that it holds, and where that goes.
struct Sent {
    schema: SchemaRef,
    /// For each field of the stream, its place in the decoder's schema.
    positions: Vec<usize>,
}

impl Sent {
    fn new(frame: &Frame<'_>, decoder: &Decoder) -> Result<Self, DecodeError> {
        let schema = frame
            .message
            .header_as_schema()
            .ok_or_else(|| malformed("the stream must begin with a schema"))?;
        if schema.endianness() != ipc::Endianness::Little {
            return Err(malformed("only little-endian streams can be read"));
        }
        let wanted = decoder.schema.fields();
        let mut seen = vec![false; wanted.len()];
        let (mut fields, mut positions) = (Vec::new(), Vec::new());
        for sent in schema.fields().into_iter().flatten() {
            let name = sent.name().unwrap_or_default();
            let Some((position, field)) = wanted.find(name) else {
                return Err(unknown_field(name, wanted));
            };
            if std::mem::replace(&mut seen[position], true) {
                return Err(DecodeError::new(DecodeCode::DuplicateField, "is there twice").at_field(name));
            }
            let data_type = layout::sent_type(sent, field.data_type())
                .map_err(|message| DecodeError::new(DecodeCode::WrongType, message).at_field(name))?;
            // Whether nulls are allowed is the input schema's word, checked once the column is there.
            fields.push(Field::new(name, data_type, true));
            positions.push(position);
        }
        match wanted.iter().zip(seen).find(|(field, seen)| !seen && !field.is_nullable()) {
            Some((field, _)) => {
                Err(DecodeError::new(DecodeCode::MissingField, "is missing").at_field(field.name()))
            }
            None => Ok(Self { schema: Arc::new(Schema::new(fields)), positions }),
        }
    }

    /// Reads a record batch of at most so many rows.
    fn batch(&self, frame: &Frame<'_>, rows: usize) -> Result<RecordBatch, DecodeError> {
        if frame.message.header_type() == MessageHeader::DictionaryBatch {
            return Err(malformed("dictionaries cannot be read: send plain text"));
        }
        let batch =
            frame.message.header_as_record_batch().ok_or_else(|| malformed("a record batch was expected"))?;
        if usize::try_from(batch.length()).is_ok_and(|length| length > rows) {
            return Err(DecodeError::new(DecodeCode::TooManyRows, "body has more rows than are allowed"));
        }
        layout::check(&batch, &frame.body, &self.schema).map_err(malformed)?;
        read_record_batch(
            &frame.body,
            batch,
            Arc::clone(&self.schema),
            &HashMap::new(),
            None,
            &MetadataVersion::V5,
        )
        .map_err(|error| unreadable(&error))
    }
}

fn unknown_field(name: &str, wanted: &Fields) -> DecodeError {
    let shown: String = name.chars().take(100).collect();
    let names = wanted.iter().map(|field| field.name().as_str());
    DecodeError::new(DecodeCode::UnknownField, suggest::unknown("field", &shown, names)).at_field(shown)
}

fn malformed(message: impl Into<String>) -> DecodeError {
    DecodeError::new(DecodeCode::Malformed, message)
}

/// An error of Arrow's own validation.
fn unreadable(error: &ArrowError) -> DecodeError {
    let message = error.to_string();
    let code = if message.contains("UTF-8") || message.contains("UTF8") {
        DecodeCode::BadUtf8
    } else {
        DecodeCode::Malformed
    };
    DecodeError::new(code, message)
}

/// Writes a batch as an Arrow IPC stream.
///
/// # Errors
/// When a type has no place in a stream.
pub fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    writer.into_inner()
}

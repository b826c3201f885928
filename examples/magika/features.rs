//! What Magika's model reads of a file: its two ends without the whitespace around it, byte by byte.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, OnceLock},
};

use millstream::{
    Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
    arrow::{
        array::{ArrayRef, AsArray, FixedSizeListArray, Int32Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    },
};
use serde::Deserialize;

/// How a file is cut, in the words of Magika's configuration.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Cut {
    /// How many bytes of its beginning the model reads, and of its end.
    beg_size: usize,
    end_size: usize,
    /// How many are looked at to find those behind and before the whitespace.
    block_size: usize,
    /// What stands where there are fewer.
    padding_token: i32,
    /// With fewer than this the model is not asked.
    min_file_size_for_dl: usize,
}

impl Cut {
    /// As a file of the package says.
    pub(crate) fn of(config: &Path) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", config.display());
        let text = std::fs::read_to_string(config)
            .map_err(|error| format!("{}; fetch.py of the example brings it", wrong(&error)))?;
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }

    /// A file, without what lies between the two blocks that are looked at: so its length does not matter, and its features stay.
    pub(crate) fn read(self, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let known = file.metadata()?;
        if !known.is_file() {
            // Of a pipe nobody knows where it ends.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        let (length, block) = (known.len(), self.block_size as u64);
        let mut content = Vec::new();
        file.by_ref().take(block).read_to_end(&mut content)?;
        if length > block {
            file.seek(SeekFrom::Start(block.max(length - block)))?;
            file.take(block).read_to_end(&mut content)?;
        }
        Ok(content)
    }

    /// The beginning and the end, as far as the model reads them.
    fn ends(self, content: &[u8]) -> (&[u8], &[u8]) {
        let block = self.block_size.min(content.len());
        let (first, last) = (&content[..block], &content[content.len() - block..]);
        let start = first.iter().position(|byte| !is_space(*byte)).unwrap_or(block);
        let end = last.iter().rposition(|byte| !is_space(*byte)).map_or(0, |at| at + 1);
        let read = block.min(start.saturating_add(self.beg_size));
        (&first[start..read], &last[end.saturating_sub(self.end_size)..end])
    }

    /// What a file is whose beginning has too few bytes for the model: text, if it can be read as such.
    fn few(self, content: &[u8], begin: &[u8]) -> Option<&'static str> {
        if content.is_empty() {
            return Some("empty");
        }
        if begin.len() >= self.min_file_size_for_dl {
            return None;
        }
        // A character that the block's end cuts through makes it no text, for Magika too.
        let read = &content[..content.len().min(self.block_size)];
        Some(if std::str::from_utf8(read).is_ok() { "txt" } else { "unknown" })
    }
}

/// What Python's `bytes.strip` takes off. Rust's `trim_ascii` leaves the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The step: `content`, the bytes of a file, becomes `bytes`, what the model reads, and `few`, what the file is if there is too little.
pub(crate) struct Features {
    cut: Cut,
    typed: OnceLock<Typed>,
}

/// Known once the graph is compiled, so that a call looks nothing up.
struct Typed {
    content: usize,
    item: FieldRef,
    width: i32,
    schema: SchemaRef,
}

impl Features {
    pub(crate) fn new(cut: Cut) -> Self {
        Self { cut, typed: OnceLock::new() }
    }

    fn resolve(&self, schema: &SchemaRef) -> Result<Typed, SchemaError> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let (content, field) = schema
            .column_with_name("content")
            .ok_or_else(|| SchemaError::unknown_column("content", names))?;
        if *field.data_type() != DataType::Binary || field.is_nullable() {
            return Err(SchemaError::new("column `content` must be binary, and never null"));
        }
        let width = i32::try_from(self.cut.beg_size.saturating_add(self.cut.end_size))
            .map_err(|_| SchemaError::new("the model reads more bytes than a tensor has room for"))?;
        let item: FieldRef = Arc::new(Field::new("item", DataType::Int32, false));
        let mut fields = schema.fields().to_vec();
        fields.remove(content);
        let tensor = DataType::FixedSizeList(Arc::clone(&item), width);
        fields.push(Arc::new(Field::new("bytes", tensor, false)));
        fields.push(Arc::new(Field::new("few", DataType::Utf8, true)));
        Ok(Typed { content, item, width, schema: Arc::new(Schema::new(fields)) })
    }

    fn made(&self, rows: &Rows) -> StepResult {
        let typed = self.typed.get().ok_or_else(|| StepError::internal("not compiled"))?;
        let mut columns = rows.batch().columns().to_vec();
        let content = columns.remove(typed.content);
        let (mut bytes, mut few) = (Vec::new(), Vec::with_capacity(rows.len()));
        for content in content.as_binary::<i32>().iter().map(Option::unwrap_or_default) {
            let (begin, end) = self.cut.ends(content);
            let padding = |size: usize, have: usize| std::iter::repeat_n(self.cut.padding_token, size - have);
            bytes.extend(begin.iter().copied().map(i32::from));
            bytes.extend(padding(self.cut.beg_size, begin.len()));
            bytes.extend(padding(self.cut.end_size, end.len()));
            bytes.extend(end.iter().copied().map(i32::from));
            few.push(self.cut.few(content, begin));
        }
        let bytes = Arc::new(Int32Array::from(bytes));
        let bytes = FixedSizeListArray::try_new(Arc::clone(&typed.item), typed.width, bytes, None)?;
        columns.extend([Arc::new(bytes) as ArrayRef, Arc::new(StringArray::from(few))]);
        Ok(Output::one(rows.replace(RecordBatch::try_new(Arc::clone(&typed.schema), columns)?)?))
    }
}

impl Step for Features {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let [schema] = inputs else { return Err(SchemaError::new("takes one input")) };
        let typed = self.resolve(schema)?;
        Ok(Signature::row_wise(Arc::clone(&self.typed.get_or_init(|| typed).schema)))
    }

    fn call<'a>(&'a self, mut input: Input, _cx: &'a RunCx) -> Work<'a> {
        Work::Done(input.rows(0).and_then(|rows| self.made(&rows)))
    }
}

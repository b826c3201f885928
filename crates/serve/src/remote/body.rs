//! What a call sends, and what its answer holds.

use std::{borrow::Cow, fmt::Display, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{Fields, Schema, SchemaRef},
};
use bytes::Bytes;
use http::HeaderValue;
use millstream_graph::{SchemaError, StepError};
use serde_json::value::RawValue;

use crate::{
    service::{ARROW_STREAM, JSON},
    wire::{
        DecodeLimits, Form, UnknownFields, ipc,
        json::{Decoder, Encoder},
    },
};

/// What is sent of the rows of a call.
pub(super) enum Sent {
    Nothing,
    /// An object of the columns, or of all.
    Object(Option<Vec<String>>),
    /// The value of one column.
    Value(String),
    /// An array of such objects.
    Array(Option<Vec<String>>),
    /// The same rows as an Arrow IPC stream.
    Arrow(Option<Vec<String>>),
}

/// How the body of a call is written.
#[derive(Debug)]
pub(super) enum Body {
    Nothing,
    Json(Picked, Encoder, Form),
    /// An object of one column is written; what stands before and behind the value is cut away.
    Value(Picked, Encoder, usize),
    Arrow(Picked),
}

/// The columns that are sent.
#[derive(Debug)]
pub(super) struct Picked {
    places: Vec<usize>,
    schema: SchemaRef,
}

impl Body {
    pub(super) fn new(sent: &Sent, input: &SchemaRef) -> Result<Self, SchemaError> {
        let json = |columns: Option<&[String]>, form| {
            let picked = Picked::new(columns, input)?;
            let encoder = Encoder::new(Arc::clone(&picked.schema))?;
            Ok(Self::Json(picked, encoder, form))
        };
        match sent {
            Sent::Nothing => Ok(Self::Nothing),
            Sent::Object(columns) => json(columns.as_deref(), Form::Object),
            Sent::Array(columns) => json(columns.as_deref(), Form::Array),
            Sent::Arrow(columns) => Ok(Self::Arrow(Picked::new(columns.as_deref(), input)?)),
            Sent::Value(column) => {
                let picked = Picked::new(Some(std::slice::from_ref(column)), input)?;
                let encoder = Encoder::new(Arc::clone(&picked.schema))?;
                let name =
                    serde_json::to_string(column).map_err(|error| SchemaError::new(error.to_string()))?;
                Ok(Self::Value(picked, encoder, "{:".len() + name.len()))
            }
        }
    }

    /// The media type of the body; none where there is no body.
    pub(super) fn media_type(&self) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Arrow(_) => Some(HeaderValue::from_static(ARROW_STREAM)),
            Self::Json(..) | Self::Value(..) => Some(JSON),
        }
    }

    pub(super) fn write(&self, batch: &RecordBatch) -> Result<Bytes, StepError> {
        let written = |encoder: &Encoder, picked: &Picked, form| {
            let mut text = Vec::new();
            let encoded = encoder.encode(&picked.of(batch)?, form, &mut text);
            encoded.map_err(|error| StepError::internal(error.to_string()))?;
            Ok::<_, StepError>(text)
        };
        Ok(match self {
            Self::Nothing => Bytes::new(),
            Self::Json(picked, encoder, form) => written(encoder, picked, *form)?.into(),
            Self::Value(picked, encoder, before) => {
                let mut text = written(encoder, picked, Form::Object)?;
                text.pop();
                Bytes::from(text).slice(*before..)
            }
            Self::Arrow(picked) => ipc::encode(&picked.of(batch)?)?.into(),
        })
    }
}

impl Picked {
    fn new(columns: Option<&[String]>, input: &SchemaRef) -> Result<Self, SchemaError> {
        let Some(columns) = columns else {
            return Ok(Self { places: (0..input.fields().len()).collect(), schema: Arc::clone(input) });
        };
        let mut places = Vec::new();
        let mut problems = Vec::new();
        for name in columns {
            match input.column_with_name(name) {
                Some((at, _)) if places.contains(&at) => {
                    problems.push(SchemaError::new(format!("column `{name}` is named twice")));
                }
                Some((at, _)) => places.push(at),
                None => {
                    let known = input.fields().iter().map(|field| field.name().as_str());
                    problems.push(SchemaError::unknown_column(name, known));
                }
            }
        }
        if columns.is_empty() {
            problems.push(SchemaError::new("`columns` names none"));
        }
        SchemaError::collect(problems)?;
        let fields: Vec<_> = places.iter().map(|&at| Arc::clone(&input.fields()[at])).collect();
        Ok(Self { places, schema: Arc::new(Schema::new(fields)) })
    }

    fn of(&self, batch: &RecordBatch) -> Result<RecordBatch, StepError> {
        let column = |&at: &usize| batch.columns().get(at).map(Arc::clone);
        let columns: Option<Vec<_>> = self.places.iter().map(column).collect();
        let columns = columns.ok_or_else(|| StepError::internal("a column that is sent did not come in"))?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// What an answer has.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) columns: Fields,
    /// Whether the answer is the value of the one column, and not an object that has it.
    pub(super) bare: bool,
}

/// How answers are read; without columns an answer is not looked at.
#[derive(Debug)]
pub(super) struct Answer {
    decoder: Option<Decoder>,
    schema: SchemaRef,
    form: Form,
    /// What makes an object of a bare value.
    before: Option<String>,
}

impl Answer {
    pub(super) fn new(output: &Output, batch: bool, most: usize) -> Result<Self, SchemaError> {
        if most == 0 || most > i32::MAX as usize {
            return Err(SchemaError::new("`max_answer` is 1 byte to 2 GiB"));
        }
        let schema = Arc::new(Schema::new(output.columns.clone()));
        let before = match (output.bare, &*output.columns) {
            (false, _) => None,
            (true, [column]) => serde_json::to_string(column.name()).ok().map(|name| format!("{{{name}:")),
            (true, _) => {
                return Err(SchemaError::new("a bare answer is the value of one column; `output` names one"));
            }
        };
        // The client bounds what it reads; what is made of it here may be longer, by some bytes for each row that was sent.
        let limits = DecodeLimits {
            body_bytes: usize::MAX,
            unknown_fields: UnknownFields::Ignore,
            ..DecodeLimits::default()
        };
        let decoder = match output.columns.is_empty() {
            true => None,
            false => Some(Decoder::new(Arc::clone(&schema), limits)?),
        };
        Ok(Self { decoder, schema, form: if batch { Form::Array } else { Form::Object }, before })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Reads the answer to a call of so many rows.
    pub(super) fn read(&self, body: &[u8], rows: usize) -> Result<RecordBatch, StepError> {
        let Some(decoder) = &self.decoder else {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            return Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), Vec::new(), &options)?);
        };
        let wrong = |why: &dyn Display| StepError::internal(format!("the answer cannot be read: {why}"));
        let body = match &self.before {
            None => Cow::Borrowed(body),
            Some(before) => Cow::Owned(self.objects(body, before, rows).map_err(|error| wrong(&error))?),
        };
        let decoded = decoder.decode(&body).map_err(|error| wrong(&error))?;
        let found = decoded.batch.num_rows();
        match (self.form, decoded.form) {
            (Form::Object, Form::Array) => Err(wrong(&"an object is wanted, but it is an array")),
            (Form::Array, Form::Object) => Err(wrong(&"an array is wanted, but it is an object")),
            _ if found != rows => Err(wrong(&miscounted(found, rows))),
            _ => Ok(decoded.batch),
        }
    }

    /// Puts each bare value into an object. Read as values first, so that none of them can be more than that.
    fn objects(&self, body: &[u8], before: &str, rows: usize) -> Result<Vec<u8>, String> {
        let values: serde_json::Result<Vec<&RawValue>> = match self.form {
            Form::Object => serde_json::from_slice(body).map(|value| vec![value]),
            Form::Array => serde_json::from_slice(body),
        };
        let values = values.map_err(|error| error.to_string())?;
        if values.len() != rows {
            return Err(miscounted(values.len(), rows));
        }
        let objects: Vec<String> = values.iter().map(|value| format!("{before}{value}}}")).collect();
        let objects = objects.join(",");
        Ok(if self.form == Form::Array { format!("[{objects}]") } else { objects }.into_bytes())
    }
}

fn miscounted(found: usize, rows: usize) -> String {
    format!("it has {found} rows for {rows} that were sent")
}

//! What a call sends, and what its answer holds.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Fields, Schema, SchemaRef},
};
use bytes::Bytes;
use http::HeaderValue;
use millstream_graph::{SchemaError, StepError};

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

/// How answers are read; without columns an answer is not looked at.
#[derive(Debug)]
pub(super) struct Answer {
    decoder: Option<Decoder>,
    schema: SchemaRef,
    form: Form,
}

impl Answer {
    pub(super) fn new(output: &Fields, batch: bool, most: usize) -> Result<Self, SchemaError> {
        let schema = Arc::new(Schema::new(output.clone()));
        let limits = DecodeLimits {
            body_bytes: most,
            unknown_fields: UnknownFields::Ignore,
            ..DecodeLimits::default()
        };
        let decoder = match output.is_empty() {
            true => None,
            false => Some(Decoder::new(Arc::clone(&schema), limits)?),
        };
        Ok(Self { decoder, schema, form: if batch { Form::Array } else { Form::Object } })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Reads the answer to a call of so many rows.
    pub(super) fn read(&self, body: &[u8], rows: usize) -> Result<RecordBatch, StepError> {
        let Some(decoder) = &self.decoder else {
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
            return Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), Vec::new(), &options)?);
        };
        let wrong = |why: Cow<'_, str>| StepError::internal(format!("the answer cannot be read: {why}"));
        let decoded = decoder.decode(body).map_err(|error| wrong(error.to_string().into()))?;
        let found = decoded.batch.num_rows();
        match (self.form, decoded.form) {
            (Form::Object, Form::Array) => Err(wrong("an object is wanted, but it is an array".into())),
            (Form::Array, Form::Object) => Err(wrong("an array is wanted, but it is an object".into())),
            _ if found != rows => Err(wrong(format!("it has {found} rows for {rows} that were sent").into())),
            _ => Ok(decoded.batch),
        }
    }
}

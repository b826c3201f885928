//! The decoder: a body in, a record batch out.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use millstream_graph::SchemaError;
use millstream_runtime::Gather;
use serde::de::DeserializeSeed;
use serde_json::error::Category;

use super::{
    assemble,
    plan::{Fate, Layout, Planner, Record},
    record::BodySeed,
    slots::{Reading, Slots},
};
use crate::wire::{DecodeCode, DecodeError, DecodeLimits, Form};

/// Reads JSON bodies into record batches of one schema. Built once per graph and shared by `Arc`.
///
/// A body is one object, which is one row, or an array of objects. Objects name their fields in any order, but
/// each once. What a field may be follows its type:
///
/// | type | JSON |
/// |---|---|
/// | integers | a whole number in range; below 2^53 also as `1.0` or `1e3` |
/// | floats | a number; one beyond the type's largest is refused |
/// | text | a string |
/// | text with `millstream.json` = `true` | any value, kept as the text it was sent as |
/// | binary | a string in base64, standard alphabet, padded |
/// | timestamp | RFC 3339 (without an offset: UTC), no finer than the unit; or a whole number of units since 1970 |
/// | date | `YYYY-MM-DD`, or a whole number of days since 1970 |
/// | decimal | a number, or a string that holds one, with no more places than the scale |
/// | list, fixed-size list | an array |
/// | struct | an object |
///
/// A field that may be null may be absent. Nothing is rounded, wrapped or guessed.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use millstream_serve::wire::{DecodeLimits, Form, json::Decoder};
///
/// let schema = Schema::new(vec![Field::new("amount", DataType::Float64, false)]);
/// let decoder = Decoder::new(Arc::new(schema), DecodeLimits::default())?;
///
/// let decoded = decoder.decode(br#"[{"amount": 3.5}, {"amount": 4}]"#).unwrap();
/// assert_eq!((decoded.form, decoded.batch.num_rows()), (Form::Array, 2));
///
/// let error = decoder.decode(br#"{"amuont": 3.5}"#).unwrap_err();
/// assert_eq!(error.code.name(), "unknown_field");
/// assert_eq!(error.message, "no field `amuont`; did you mean `amount`?");
/// # Ok::<(), millstream_graph::SchemaError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    pub(super) limits: DecodeLimits,
    pub(super) record: Record,
    /// What becomes of each column.
    fates: Vec<Fate>,
    pub(super) layouts: Vec<Layout>,
}

/// A body that was read: its rows, and the form they came in.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows, in the decoder's schema.
    pub batch: RecordBatch,
    /// The form the reply should take.
    pub form: Form,
}

impl Decoder {
    /// A decoder for the rows of a schema.
    ///
    /// # Errors
    /// When a type cannot be read from JSON, or a name is there twice; all such problems at once.
    pub fn new(schema: SchemaRef, limits: DecodeLimits) -> Result<Self, SchemaError> {
        let mut planner = Planner::default();
        let record = planner.record(schema.fields(), "", 0);
        let layouts = planner.finish()?;
        let fates = vec![Fate::Carried; record.nodes.len()];
        Ok(Self { schema, limits, record, fates, layouts })
    }

    /// Makes only the columns of `schema`, which are some of the decoder's in the same order. The others are read and checked as
    /// before, and then left.
    #[must_use]
    pub fn carrying(mut self, schema: &SchemaRef) -> Self {
        for ((field, node), fate) in self.schema.fields().iter().zip(&self.record.nodes).zip(&mut self.fates)
        {
            if schema.column_with_name(field.name()).is_none() {
                *fate = node.unread();
            }
            if *fate == Fate::Left {
                node.leave(&mut self.layouts);
            }
        }
        self.schema = Arc::clone(schema);
        self
    }

    /// The schema of every batch that this decoder makes.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads one body.
    ///
    /// # Errors
    /// When the body is not JSON, not what the schema asks for, or beyond the limits: see [`DecodeCode`].
    pub fn decode(&self, body: &[u8]) -> Result<Decoded, DecodeError> {
        let (body, form) = self.read(body)?;
        Ok(Decoded { batch: self.assembled(body)?, form })
    }

    /// The rows of a body that was read.
    pub(crate) fn assembled(&self, body: Body) -> Result<RecordBatch, DecodeError> {
        self.assemble(body.slots).map_err(|error| {
            let code = match error {
                ArrowError::DictionaryKeyOverflowError => DecodeCode::OutOfRange,
                _ => DecodeCode::Internal,
            };
            DecodeError::new(code, format!("rows could not be put together: {error}"))
        })
    }

    /// Reads one body, on its way into a batch that others may share: see [`Gather`].
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn read(&self, body: &[u8]) -> Result<(Body, Form), DecodeError> {
        self.limits.check_length(body)?;
        let body = std::str::from_utf8(body).map_err(|error| not_utf8(&error))?;
        let mut cx = Reading::new(&self.layouts, &self.limits);
        let mut row = None;
        let mut parser = serde_json::Deserializer::from_str(body);
        let read = BodySeed { record: &self.record, cx: &mut cx, row: &mut row }.deserialize(&mut parser);
        let form = read.and_then(|form| parser.end().map(|()| form)).map_err(|error| {
            let mut fault = cx.fault.take().unwrap_or_else(|| explain(&error, body));
            fault.field = cx.place();
            fault.row = row;
            fault
        })?;
        Ok((Body { rows: cx.slots[self.record.slot].len, slots: cx.slots }, form))
    }

    fn assemble(&self, mut slots: Slots) -> Result<RecordBatch, ArrowError> {
        assemble::batch(&self.schema, &self.record, &self.fates, &self.layouts, &mut slots)
    }
}

/// A body that was read: its values, column by column, not yet in arrays.
#[derive(Debug)]
pub struct Body {
    pub(super) slots: Slots,
    pub(super) rows: usize,
}

/// Bodies become one batch column by column: what arrays cost is paid once for all of them. Bodies that share a batch must be
/// small enough for their texts together to fit offsets of 32 bits.
impl Gather for Decoder {
    type Part = Body;
    type Gathered = Option<Body>;

    fn rows(&self, part: &Body) -> usize {
        part.rows
    }

    fn add(&self, gathered: &mut Option<Body>, part: Body) {
        match gathered {
            None => *gathered = Some(part),
            Some(first) => {
                first.slots.iter_mut().zip(&*part.slots).for_each(|(slot, more)| slot.append(more));
                first.rows += part.rows;
            }
        }
    }

    fn batch(&self, gathered: Option<Body>) -> Result<RecordBatch, ArrowError> {
        match gathered {
            Some(body) => self.assemble(body.slots),
            None => Ok(RecordBatch::new_empty(Arc::clone(&self.schema))),
        }
    }
}

fn not_utf8(error: &std::str::Utf8Error) -> DecodeError {
    let at = error.valid_up_to();
    match error.error_len() {
        Some(_) => DecodeError::new(DecodeCode::BadUtf8, format!("body is not UTF-8 at byte {at}")),
        None => {
            DecodeError::new(DecodeCode::Truncated, format!("body ends within a character, at byte {at}"))
        }
    }
}

/// What the parser's own error means. Its text is part of what is tested here, since its type tells only three
/// kinds apart.
pub(super) fn explain(error: &serde_json::Error, body: &str) -> DecodeError {
    let text = error.to_string();
    let text = text.split_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    let (code, message) = match error.classify() {
        Category::Eof if body.trim().is_empty() => (DecodeCode::Truncated, "body is empty".to_owned()),
        Category::Eof => (DecodeCode::Truncated, CUT.to_owned()),
        // Where a number is only passed over, its missing end counts as bad grammar.
        Category::Syntax
            if text == "invalid number" && ends_at(body, error) && body.ends_with(UNFINISHED) =>
        {
            (DecodeCode::Truncated, CUT.to_owned())
        }
        Category::Data | Category::Io => (DecodeCode::WrongType, wrong_type(text)),
        Category::Syntax => {
            let code = match text {
                "number out of range" => DecodeCode::OutOfRange,
                "trailing characters" => DecodeCode::Trailing,
                "recursion limit exceeded" => DecodeCode::TooDeep,
                "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
                    DecodeCode::BadUtf8
                }
                _ => DecodeCode::Malformed,
            };
            (code, format!("{text}, at line {} column {}", error.line(), error.column()))
        }
    };
    DecodeError::new(code, message)
}

const CUT: &str = "body ends in the middle of a value";

/// What a number never ends with.
const UNFINISHED: [char; 5] = ['-', '+', '.', 'e', 'E'];

/// Whether an error is about the very end of the body.
fn ends_at(body: &str, error: &serde_json::Error) -> bool {
    let last_line = body.rsplit('\n').next().unwrap_or(body);
    error.column() == last_line.len() && error.line() == 1 + body.matches('\n').count()
}

/// `invalid type: string "..", expected a number`, without the value: it may be as long as the body.
fn wrong_type(text: &str) -> String {
    let got = text.strip_prefix("invalid type: ").unwrap_or("value");
    let got = match got.split([' ', ',']).next() {
        Some("string") => "a string",
        Some("integer" | "floating" | "number") => "a number",
        Some("boolean") => "true or false",
        Some("map") => "an object",
        Some("sequence") => "an array",
        Some("null") => "null",
        _ => "another value",
    };
    match text.rsplit_once("expected ") {
        Some((_, wanted)) => format!("must be {wanted}, but is {got}"),
        None => format!("is {got}"),
    }
}

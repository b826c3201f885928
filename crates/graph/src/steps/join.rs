//! A step that puts the columns of several in-ports side by side.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array},
    compute::take,
    datatypes::{Field, SchemaRef},
    row::{OwnedRow, RowConverter, SortField},
};
use smallvec::SmallVec;

use crate::{
    Input, Narrow, OutPort, Output, RowFlow, Rows, RunCx, SchemaError, Signature, Step, StepError, Token,
    Work, graph::schema_of,
};

/// Which rows meet in a join. The rows of in-port 0 are kept, in their order; what other in-ports lack is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinOn {
    /// Rows that stood at the same place in the request.
    ///
    /// A column that several in-ports have must be the same column, carried along parallel branches: values that differ
    /// are an error.
    Rows,
    /// Rows with the same values in these columns; null meets nothing, and each key stands at most once in the other
    /// in-ports.
    Keys(Vec<String>),
}

/// What happens to rows of in-port 0 that meet no row of another in-port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinHow {
    /// They are kept, with nulls.
    #[default]
    Left,
    /// They are left out.
    Inner,
}

/// Puts columns side by side.
pub(crate) struct Join {
    on: JoinOn,
    how: JoinHow,
    layout: OnceLock<Layout>,
}

/// Where each column of the joined rows comes from.
struct Layout {
    schema: SchemaRef,
    /// Per column: the in-port, and the column there.
    columns: Vec<(usize, usize)>,
    /// Columns that several in-ports carry: first place, other place.
    carried: Vec<((usize, usize), (usize, usize))>,
    /// Per in-port: where the key columns stand; empty when rows meet by place.
    keys: Vec<Vec<usize>>,
    converter: Option<RowConverter>,
}

impl Join {
    pub(crate) fn new(on: JoinOn) -> Self {
        Self { on, how: JoinHow::Left, layout: OnceLock::new() }
    }

    pub(crate) fn how(mut self, how: JoinHow) -> Self {
        self.how = how;
        self
    }

    /// Keys are read, and columns that several in-ports carry: that they are the same is checked.
    fn narrow(&self, layout: &Layout, in_ports: usize) -> Narrow {
        let mut reads = layout.keys.clone();
        reads.resize_with(in_ports, Vec::new);
        for &(first, other) in &layout.carried {
            [first, other].into_iter().for_each(|(port, at)| reads[port].push(at));
        }
        let (on, how) = (self.on.clone(), self.how);
        Narrow::new(reads, move |_| Self::new(on.clone()).how(how))
    }

    fn layout(&self, inputs: &[SchemaRef]) -> Result<Layout, SchemaError> {
        let mut errors = Vec::new();
        let (keys, converter) = match &self.on {
            JoinOn::Rows => (Vec::new(), None),
            JoinOn::Keys(names) => key_columns(names, inputs, &mut errors),
        };
        let mut fields: Vec<Arc<Field>> = Vec::new();
        let mut columns: Vec<(usize, usize)> = Vec::new();
        let mut carried = Vec::new();
        for (port, schema) in inputs.iter().enumerate() {
            for (at, field) in schema.fields().iter().enumerate() {
                let known = fields.iter().position(|known| known.name() == field.name());
                match (known, &self.on) {
                    (None, _) => {
                        let nullable = field.is_nullable() || (port > 0 && self.how == JoinHow::Left);
                        fields.push(Arc::new(Field::clone(field).with_nullable(nullable)));
                        columns.push((port, at));
                    }
                    (Some(_), JoinOn::Keys(names)) if names.contains(field.name()) => {}
                    (Some(first), JoinOn::Rows) if fields[first].data_type() == field.data_type() => {
                        carried.push((columns[first], (port, at)));
                    }
                    (Some(first), JoinOn::Rows) => errors.push(SchemaError::new(format!(
                        "column `{}` is {} on input {} but {} on input {port}; rename one",
                        field.name(),
                        fields[first].data_type(),
                        columns[first].0,
                        field.data_type(),
                    ))),
                    (Some(first), JoinOn::Keys(_)) => errors.push(SchemaError::new(format!(
                        "column `{}` comes from inputs {} and {port}; rename or drop one",
                        field.name(),
                        columns[first].0
                    ))),
                }
            }
        }
        SchemaError::collect(errors)?;
        Ok(Layout { schema: schema_of(fields), columns, carried, keys, converter })
    }
}

/// Where the key columns stand in each in-port, and how their rows become comparable.
fn key_columns(
    names: &[String],
    inputs: &[SchemaRef],
    errors: &mut Vec<SchemaError>,
) -> (Vec<Vec<usize>>, Option<RowConverter>) {
    let mut keys = vec![Vec::new(); inputs.len()];
    if names.is_empty() {
        errors.push(SchemaError::new("rows need a column to meet on; name a key"));
    }
    for name in names {
        let mut first: Option<(usize, &Field)> = None;
        for (port, schema) in inputs.iter().enumerate() {
            let Some((at, field)) = schema.column_with_name(name) else {
                let known = schema.fields().iter().map(|field| field.name().as_str());
                let message = crate::suggest::unknown("column", name, known);
                errors.push(SchemaError::new(format!("key on input {port}: {message}")));
                continue;
            };
            keys[port].push(at);
            match first {
                None => first = Some((port, field)),
                Some((other, known)) if known.data_type() != field.data_type() => {
                    errors.push(SchemaError::new(format!(
                        "key `{name}` is {} on input {other} but {} on input {port}",
                        known.data_type(),
                        field.data_type()
                    )));
                }
                Some(_) => {}
            }
        }
    }
    let sort_fields =
        keys[0].iter().map(|&at| SortField::new(inputs[0].field(at).data_type().clone())).collect();
    match RowConverter::new(sort_fields) {
        Ok(converter) => (keys, Some(converter)),
        Err(error) => {
            errors.push(SchemaError::new(format!("a key cannot be compared: {error}")));
            (keys, None)
        }
    }
}

impl Step for Join {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        if inputs.len() < 2 {
            return Err(SchemaError::new(format!("takes two inputs or more, not {}", inputs.len())));
        }
        let layout = self.layout(inputs)?;
        let flow = if self.how == JoinHow::Left { RowFlow::Same } else { RowFlow::Subset };
        let signature = Signature::ports(vec![OutPort::new("out", Arc::clone(&layout.schema), flow)]);
        let narrow = self.narrow(&layout, inputs.len());
        let _ = self.layout.set(layout);
        let signature = signature.narrowing(narrow);
        Ok(if self.on == JoinOn::Rows { signature.lining_up() } else { signature })
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        let layout = self.layout.get().ok_or_else(|| StepError::internal("the step was not compiled"));
        Work::Done(layout.and_then(|layout| layout.join(input, self.how)))
    }
}

impl Layout {
    fn join(&self, input: Input, how: JoinHow) -> Result<Output, StepError> {
        let tokens = input.into_tokens();
        let Some(Token::Rows(left)) = tokens.first() else {
            return Ok(Output::none());
        };
        // Which row of each in-port each row of in-port 0 meets; `None` when they are the same rows in the same order.
        let mut met: SmallVec<[Option<UInt32Array>; 8]> = SmallVec::new();
        met.push(None);
        let mut kept = vec![];
        for (port, token) in tokens.iter().enumerate().skip(1) {
            let rows = match token {
                Token::Rows(rows) => self.meet(left, rows, port)?,
                Token::Skip => Some(UInt32Array::new_null(left.len())),
            };
            if let (JoinHow::Inner, Some(rows)) = (how, &rows) {
                kept.resize(left.len(), true);
                kept.iter_mut().enumerate().for_each(|(row, kept)| *kept &= rows.is_valid(row));
            }
            met.push(rows);
        }
        let column = |(index, &(port, at)): (usize, &(usize, usize))| -> Result<ArrayRef, StepError> {
            Ok(match (&tokens[port], &met[port]) {
                (Token::Rows(rows), None) => Arc::clone(rows.batch().column(at)),
                (Token::Rows(rows), Some(met)) => take(rows.batch().column(at), met, None)?,
                (Token::Skip, _) => new_null_array(self.schema.field(index).data_type(), left.len()),
            })
        };
        if how == JoinHow::Inner && tokens.iter().any(|token| matches!(token, Token::Skip)) {
            return Ok(Output::none());
        }
        self.check_carried(&tokens, &met)?;
        let columns = self.columns.iter().enumerate().map(column).collect::<Result<Vec<_>, _>>()?;
        if kept.iter().any(|kept| !kept) {
            let keep = BooleanArray::from(kept);
            let columns =
                columns.iter().map(|c| arrow::compute::filter(c, &keep)).collect::<Result<Vec<_>, _>>()?;
            let rows = left.filter(&keep)?;
            return Ok(Output::one(rows.replace(self.batch(columns, rows.len())?)?));
        }
        Ok(Output::one(left.replace(self.batch(columns, left.len())?)?))
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, StepError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn meet(&self, left: &Rows, right: &Rows, port: usize) -> Result<Option<UInt32Array>, StepError> {
        match &self.converter {
            None => meet_by_place(left, right),
            Some(converter) => self.meet_by_key(converter, left, right, port).map(Some),
        }
    }

    fn meet_by_key(
        &self,
        converter: &RowConverter,
        left: &Rows,
        right: &Rows,
        port: usize,
    ) -> Result<UInt32Array, StepError> {
        let keys_of = |rows: &Rows, port: usize| -> Result<Vec<Option<OwnedRow>>, StepError> {
            let columns: Vec<_> =
                self.keys[port].iter().map(|&at| Arc::clone(rows.batch().column(at))).collect();
            let keys = converter.convert_columns(&columns)?;
            let whole = |row: usize| columns.iter().all(|column| column.is_valid(row));
            Ok((0..rows.len()).map(|row| whole(row).then(|| keys.row(row).owned())).collect())
        };
        let mut index = HashMap::with_capacity(right.len());
        for (row, key) in keys_of(right, port)?.into_iter().enumerate() {
            if let Some(key) = key
                && let Some(twice) = index.insert(key, row as u32)
            {
                return Err(StepError::rows(format!(
                    "input {port} has rows {twice} and {row} with the same key"
                )));
            }
        }
        Ok(keys_of(left, 0)?.into_iter().map(|key| key.and_then(|key| index.get(&key).copied())).collect())
    }

    /// Refuses a column that parallel branches carried along and one of them changed.
    fn check_carried(&self, tokens: &[Token], met: &[Option<UInt32Array>]) -> Result<(), StepError> {
        for ((first_port, first), (port, at)) in &self.carried {
            let (Token::Rows(a), Token::Rows(b)) = (&tokens[*first_port], &tokens[*port]) else { continue };
            let (a_column, b_column) = (a.batch().column(*first), b.batch().column(*at));
            if Arc::ptr_eq(a_column, b_column) {
                continue;
            }
            // Where a row is missing on either side there is nothing to compare.
            let lined_up = |column: &ArrayRef, met: &Option<UInt32Array>| match met {
                None => Ok(Arc::clone(column)),
                Some(met) => take(column, met, None),
            };
            let (a_column, b_column) =
                (lined_up(a_column, &met[*first_port])?, lined_up(b_column, &met[*port])?);
            let there = |row: usize| {
                let has = |met: &Option<UInt32Array>| met.as_ref().is_none_or(|met| met.is_valid(row));
                has(&met[*first_port]) && has(&met[*port])
            };
            let differs = |row: usize| {
                there(row) && a_column.slice(row, 1).to_data() != b_column.slice(row, 1).to_data()
            };
            if (0..a_column.len()).any(differs) {
                let name = a.schema().field(*first).name();
                return Err(StepError::internal(format!(
                    "column `{name}` differs between inputs {first_port} and {port}; rename it in one of them"
                )));
            }
        }
        Ok(())
    }
}

/// Which row of `right` stood at the same place in the request as each row of `left`.
fn meet_by_place(left: &Rows, right: &Rows) -> Result<Option<UInt32Array>, StepError> {
    if left.len() == right.len() && left.origin() == right.origin() {
        return Ok(None);
    }
    let lost = || StepError::internal("rows lost their place in the request");
    let mut at_place = HashMap::with_capacity(right.len());
    for row in 0..right.len() {
        let place = right.origin().place(row).ok_or_else(lost)?;
        if at_place.insert(place, row as u32).is_some() {
            return Err(StepError::internal(format!("row {place} of the request is there twice")));
        }
    }
    let met = (0..left.len()).map(|row| left.origin().place(row).map(|place| at_place.get(&place).copied()));
    Ok(Some(met.collect::<Option<Vec<_>>>().ok_or_else(lost)?.into_iter().collect()))
}

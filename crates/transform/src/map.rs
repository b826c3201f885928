//! `map`: values and ranges become other values.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, Int64Array},
    compute::{concat, interleave, take},
    datatypes::{DataType, Field, Float64Type, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{Input, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Literal,
    codes::{Codes, Place, shown_value},
    encode::one_per_row,
    literal::common_type,
    prepared::{
        Failure, Kernel, Layout, LayoutBuilder, Prepared, column_problem, each_column, without_failures,
    },
};

/// What becomes of a value that nothing maps.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unmapped {
    /// The row leaves on the error port.
    #[default]
    Error,
    /// It becomes null.
    Null,
    /// It stays as it is; what is mapped must be of the column's type then.
    Keep,
    /// It becomes this value.
    Default(Literal),
}

/// A half-open range of numbers and what it becomes: `from <= x < to`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MapRange {
    /// The smallest number of the range; unbounded when it is left out.
    pub from: Option<f64>,
    /// The smallest number above the range; unbounded when it is left out.
    pub to: Option<f64>,
    /// What the numbers of the range become.
    pub value: Literal,
}

impl MapRange {
    /// The numbers from `from` up to, and without, `to`.
    pub fn new(from: impl Into<Option<f64>>, to: impl Into<Option<f64>>, value: impl Into<Literal>) -> Self {
        Self { from: from.into(), to: to.into(), value: value.into() }
    }
}

/// How the values of one column become others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapColumn {
    /// What each value becomes. The values of a column of whole numbers, or of true and false, are written as text.
    #[serde(default)]
    values: IndexMap<String, Literal>,
    /// What ranges of numbers become; they do not overlap, and NaN is in none.
    #[serde(default)]
    ranges: Vec<MapRange>,
    /// What becomes of other values: `error`, `null`, `keep`, or `{default: value}`. Null stays null.
    #[serde(default)]
    unmapped: Unmapped,
    /// The name of a new column for the result; without it the result replaces the column.
    #[serde(rename = "as")]
    to: Option<String>,
}

impl MapColumn {
    /// Maps single values.
    pub fn values<K: Into<String>, V: Into<Literal>>(values: impl IntoIterator<Item = (K, V)>) -> Self {
        let values = values.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { values, ..Self::default() }
    }

    /// Maps ranges of numbers.
    pub fn ranges(ranges: impl IntoIterator<Item = MapRange>) -> Self {
        Self { ranges: ranges.into_iter().collect(), ..Self::default() }
    }

    /// Says what becomes of other values; an error unless said otherwise.
    #[must_use]
    pub fn unmapped(mut self, unmapped: Unmapped) -> Self {
        self.unmapped = unmapped;
        self
    }

    /// Puts the result into a new column.
    #[must_use]
    pub fn to(mut self, name: impl Into<String>) -> Self {
        self.to = Some(name.into());
        self
    }
}

/// Replaces values by others, or puts them into a new column. Columns that are not named stay.
///
/// ```
/// use millstream_transform::{Map, MapColumn, MapRange, Unmapped};
/// let step = Map::new()
///     .column("country", MapColumn::values([("US", "home"), ("CA", "near")]).unmapped(Unmapped::Default("far".into())))
///     .column("age", MapColumn::ranges([MapRange::new(None, 18.0, "minor"), MapRange::new(18.0, None, "adult")]).to("age_group"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Map {
    columns: IndexMap<String, MapColumn>,
    prepared: Prepared<MapKernel>,
}

/// Values that become other values.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MapSettings {
    /// How the values of each column are mapped.
    columns: IndexMap<String, MapColumn>,
}

impl Map {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps the values of `column`.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>, map: MapColumn) -> Self {
        self.columns.insert(column.into(), map);
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<MapKernel, SchemaError> {
        let columns = each_column(schema, &self.columns, |at, name, map| {
            let field = schema.field(at);
            let compiled = Mapped::new(at, name, map, field.data_type())
                .map_err(|problem| column_problem(name, problem))?;
            let nullable = field.is_nullable() || map.unmapped == Unmapped::Null;
            let output = map.to.as_deref().unwrap_or(name);
            let field = Field::new(output, compiled.data_type().clone(), nullable);
            Ok((compiled, Arc::new(field), map.to.is_some()))
        })?;
        let mut layout = LayoutBuilder::new(schema);
        let mut mapped = Vec::with_capacity(columns.len());
        for (column, field, appended) in columns {
            if appended {
                layout.append(field);
            } else {
                layout.replace(column.at, [field]);
            }
            mapped.push(column);
        }
        Ok(MapKernel { columns: mapped, layout: layout.finish()? })
    }
}

impl From<MapSettings> for Map {
    fn from(settings: MapSettings) -> Self {
        Self { columns: settings.columns, prepared: Prepared::default() }
    }
}

impl Step for Map {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct MapKernel {
    columns: Vec<Mapped>,
    layout: Layout,
}

#[derive(Debug)]
struct Mapped {
    at: usize,
    name: Box<str>,
    keys: Keys,
    /// What the keys become, in their order, and behind them the default or null.
    values: ArrayRef,
    otherwise: Otherwise,
}

#[derive(Debug)]
enum Keys {
    Values(Codes),
    /// Sorted and without overlap.
    Ranges(Vec<Range>),
}

#[derive(Debug)]
struct Range {
    from: f64,
    to: f64,
    code: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    Error,
    Keep,
    /// The row of `values` behind those of the keys.
    Last,
}

impl Mapped {
    fn new(at: usize, name: &str, map: &MapColumn, data_type: &DataType) -> Result<Self, String> {
        let (keys, outcomes) = match (map.values.is_empty(), map.ranges.is_empty()) {
            (false, false) => return Err("it maps either `values` or `ranges`, not both".to_owned()),
            (true, true) => return Err("it maps nothing: give `values` or `ranges`".to_owned()),
            (false, true) => {
                let keys =
                    map.values.keys().map(|key| key_of(key, data_type)).collect::<Result<Vec<_>, _>>()?;
                (Keys::Values(Codes::new(&keys, data_type)?), map.values.values().collect::<Vec<_>>())
            }
            (true, false) => {
                let outcomes = map.ranges.iter().map(|range| &range.value).collect();
                (Keys::Ranges(ranges(&map.ranges, data_type)?), outcomes)
            }
        };
        let default = match &map.unmapped {
            Unmapped::Default(value) => Some(value),
            _ => None,
        };
        let made = match map.unmapped {
            Unmapped::Keep => data_type.clone(),
            _ => common_type(outcomes.iter().copied().chain(default))?,
        };
        let mut cells = Vec::with_capacity(outcomes.len() + 1);
        for value in outcomes.into_iter().chain(default) {
            cells.push(value.to_array(&made).map_err(|problem| match map.unmapped {
                Unmapped::Keep => format!("{problem}, and unmapped values are kept"),
                _ => problem,
            })?);
        }
        if default.is_none() {
            cells.push(arrow::array::new_null_array(&made, 1));
        }
        let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
        let values = concat(&cells).map_err(|error| error.to_string())?;
        let otherwise = match map.unmapped {
            Unmapped::Error => Otherwise::Error,
            Unmapped::Keep => Otherwise::Keep,
            Unmapped::Null | Unmapped::Default(_) => Otherwise::Last,
        };
        Ok(Self { at, name: name.into(), keys, values, otherwise })
    }

    fn data_type(&self) -> &DataType {
        self.values.data_type()
    }

    fn each(&self, array: &ArrayRef, mut each: impl FnMut(usize, Place)) -> Result<(), StepError> {
        match &self.keys {
            Keys::Values(codes) => codes.each(array, each),
            Keys::Ranges(ranges) => {
                let numbers = numbers(array)?;
                for (row, number) in numbers.iter().enumerate() {
                    each(row, number.map_or(Place::Null, |number| range_of(ranges, number)));
                }
                Ok(())
            }
        }
    }

    fn map(&self, array: &ArrayRef) -> Result<ArrayRef, StepError> {
        let rest = self.values.len() - 1;
        if self.otherwise == Otherwise::Keep {
            let mut picked = vec![(0, 0); array.len()];
            self.each(array, |row, place| {
                picked[row] = match place {
                    Place::At(code) => (1, code as usize),
                    Place::Null | Place::Unlisted => (0, row),
                };
            })?;
            return Ok(interleave(&[array.as_ref(), self.values.as_ref()], &picked)?);
        }
        let mut picked = vec![None; array.len()];
        self.each(array, |row, place| {
            picked[row] = match place {
                Place::At(code) => Some(i64::from(code)),
                Place::Unlisted => Some(rest as i64),
                Place::Null => None,
            };
        })?;
        Ok(take(&self.values, &Int64Array::from(picked), None)?)
    }
}

impl Kernel for MapKernel {
    fn signature(&self) -> Signature {
        Signature::row_wise(Arc::clone(self.layout.schema()))
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }

    fn reads(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.at).collect()
    }

    fn run(&self, rows: Rows) -> StepResult {
        let mut failures: Vec<Failure> = Vec::new();
        for column in self.columns.iter().filter(|column| column.otherwise == Otherwise::Error) {
            let array = rows.batch().column(column.at);
            column.each(array, |row, place| {
                if place == Place::Unlisted {
                    let message =
                        format!("column `{}`: nothing maps {}", column.name, shown_value(array, row));
                    failures.push(Failure { row: row as u32, message });
                }
            })?;
        }
        without_failures(&rows, one_per_row(failures), |rows| {
            let mut new = Vec::with_capacity(self.columns.len());
            for column in &self.columns {
                new.push(column.map(rows.batch().column(column.at))?);
            }
            self.layout.rows(rows, &new)
        })
    }
}

/// A key of a settings file as a value of the column.
fn key_of(key: &str, data_type: &DataType) -> Result<Literal, String> {
    match data_type {
        DataType::Boolean => match key {
            "true" => Ok(Literal::Bool(true)),
            "false" => Ok(Literal::Bool(false)),
            _ => Err(format!("'{key}' is neither true nor false")),
        },
        other if other.is_integer() => {
            key.parse().map(Literal::Int).map_err(|_| format!("'{key}' is not a whole number"))
        }
        other if other.is_floating() => Err("numbers with a fraction are mapped by `ranges`".to_owned()),
        _ => Ok(Literal::Text(key.to_owned())),
    }
}

fn ranges(ranges: &[MapRange], data_type: &DataType) -> Result<Vec<Range>, String> {
    if !data_type.is_numeric() {
        return Err(format!("`ranges` need numbers, not {data_type}"));
    }
    let mut sorted = Vec::with_capacity(ranges.len());
    for (code, range) in ranges.iter().enumerate() {
        let (from, to) = (range.from.unwrap_or(f64::NEG_INFINITY), range.to.unwrap_or(f64::INFINITY));
        // Not `from >= to`: a bound that is NaN is refused, too.
        if from.partial_cmp(&to) != Some(std::cmp::Ordering::Less) {
            return Err(format!("the range from {from} to {to} is empty"));
        }
        sorted.push(Range { from, to, code: code as u32 });
    }
    sorted.sort_by(|a, b| a.from.total_cmp(&b.from));
    for pair in sorted.windows(2) {
        if let [first, second] = pair
            && second.from < first.to
        {
            return Err(format!(
                "the ranges from {} to {} and from {} to {} overlap",
                first.from, first.to, second.from, second.to
            ));
        }
    }
    Ok(sorted)
}

fn range_of(ranges: &[Range], number: f64) -> Place {
    let after = ranges.partition_point(|range| range.from <= number);
    match after.checked_sub(1).and_then(|at| ranges.get(at)) {
        // A range without an upper bound holds infinity, too.
        Some(range) if number < range.to || range.to == f64::INFINITY => Place::At(range.code),
        _ => Place::Unlisted,
    }
}

/// Any numbers as 64-bit floats; beyond 2^53 whole numbers are rounded, which moves none across a bound below that.
pub(crate) fn numbers(array: &ArrayRef) -> Result<Float64Array, StepError> {
    let cast;
    let array = if *array.data_type() == DataType::Float64 {
        array
    } else {
        cast = arrow::compute::cast(array, &DataType::Float64)?;
        &cast
    };
    match array.as_primitive_opt::<Float64Type>() {
        Some(numbers) => Ok(numbers.clone()),
        None => Err(StepError::internal(format!("numbers came in as {}", array.data_type()))),
    }
}

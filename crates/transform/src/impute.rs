//! `impute`: values for what is missing.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::interleave,
    datatypes::{Float32Type, Float64Type, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{
    Input, Origin, Output, Rows, RunCx, SchemaError, Signature, Step, StepError, StepResult, Work,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Literal,
    prepared::{Kernel, Layout, LayoutBuilder, Prepared, column_problem, each_column},
};

/// Where the value for what is missing comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fill {
    /// The mean of the training data.
    Mean(f64),
    /// The median of the training data.
    Median(f64),
    /// A constant.
    Constant(Literal),
    /// The last value that was there in an earlier row of the same request, and this value before the first one.
    Last(Literal),
}

/// Fills in what is missing: null and, in columns of floats, NaN.
///
/// Means and medians are numbers of the training data, given when the step is made: a step never learns from the
/// requests that it sees. `last` goes by the order of the rows inside one request; nothing is remembered from one
/// request to the next, so that the same request always has the same answer.
///
/// A filled column is never null. Its type stays: a column of whole numbers cannot be filled with 41.5, cast it first.
///
/// ```
/// use millstream_transform::{Fill, Impute};
/// let step = Impute::new().column("age", Fill::Median(41.0)).column("country", Fill::Constant("US".into()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Impute {
    columns: Vec<(String, Result<Fill, String>)>,
    keep_nan: bool,
    prepared: Prepared<ImputeKernel>,
}

/// Values for what is missing in some columns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImputeSettings {
    /// How each column is filled.
    columns: IndexMap<String, FillSettings>,
    /// Means and medians of the training data by column, for the columns that give no `value` of their own.
    #[serde(default)]
    statistics: IndexMap<String, Statistics>,
    /// Whether NaN counts as missing in columns of floats.
    #[serde(default = "yes")]
    nan: bool,
}

fn yes() -> bool {
    true
}

/// How one column is filled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FillSettings {
    /// Where the value comes from.
    method: Method,
    /// The mean, the median, the constant, or the value before the first one. A mean or median may stand in
    /// `statistics` instead.
    value: Option<Literal>,
}

/// Where the value for what is missing comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// The mean of the training data.
    Mean,
    /// The median of the training data.
    Median,
    /// A constant.
    Constant,
    /// The last value in an earlier row of the same request.
    Last,
}

/// What is known of a column of the training data.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Statistics {
    /// The mean.
    mean: Option<f64>,
    /// The median.
    median: Option<f64>,
}

impl Impute {
    /// No columns yet; NaN counts as missing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `column`.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>, fill: Fill) -> Self {
        self.columns.push((column.into(), Ok(fill)));
        self
    }

    /// Lets NaN be a value like others.
    #[must_use]
    pub fn keep_nan(mut self) -> Self {
        self.keep_nan = true;
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<ImputeKernel, SchemaError> {
        let pairs = self.columns.iter().map(|(name, fill)| (name, fill));
        let columns = each_column(schema, pairs, |at, name, fill| {
            let data_type = schema.field(at).data_type();
            let number = |value: f64| {
                if value.fract() == 0.0 && data_type.is_integer() {
                    Literal::Int(value as i128)
                } else {
                    Literal::Float(value)
                }
            };
            let (value, last) = match fill {
                Ok(Fill::Mean(value) | Fill::Median(value)) => (number(*value), false),
                Ok(Fill::Constant(value)) => (value.clone(), false),
                Ok(Fill::Last(value)) => (value.clone(), true),
                Err(problem) => return Err(column_problem(name, problem)),
            };
            let hint = if data_type.is_integer() && matches!(value, Literal::Float(_)) {
                "; cast the column to float64 first"
            } else {
                ""
            };
            let fill = value
                .to_array(data_type)
                .map_err(|problem| column_problem(name, format!("{problem}{hint}")))?;
            Ok(ImputeColumn { at, fill, last, nan: !self.keep_nan && data_type.is_floating() })
        })?;
        let mut layout = LayoutBuilder::new(schema);
        for column in &columns {
            layout.replace(column.at, [Arc::new(schema.field(column.at).clone().with_nullable(false))]);
        }
        Ok(ImputeKernel { columns, layout: layout.finish()? })
    }
}

impl From<ImputeSettings> for Impute {
    fn from(settings: ImputeSettings) -> Self {
        let ImputeSettings { columns, statistics, nan } = settings;
        let fill = |name: &str, settings: FillSettings| {
            let known = statistics.get(name);
            let number = |known: Option<f64>, what: &str| match settings.value {
                Some(Literal::Int(value)) => Ok(value as f64),
                Some(Literal::Float(value)) => Ok(value),
                Some(ref other) => Err(format!("a {what} is a number, not {other}")),
                None => known.ok_or_else(|| {
                    format!("its {what} is missing: give `value`, or `{what}` in `statistics`")
                }),
            };
            let plain =
                |what: &str| settings.value.clone().ok_or_else(|| format!("`{what}` needs a `value`"));
            match settings.method {
                Method::Mean => number(known.and_then(|known| known.mean), "mean").map(Fill::Mean),
                Method::Median => number(known.and_then(|known| known.median), "median").map(Fill::Median),
                Method::Constant => plain("constant").map(Fill::Constant),
                Method::Last => plain("last").map(Fill::Last),
            }
        };
        let columns = columns
            .into_iter()
            .map(|(name, settings)| {
                let fill = fill(&name, settings);
                (name, fill)
            })
            .collect();
        Self { columns, keep_nan: !nan, prepared: Prepared::default() }
    }
}

impl Step for Impute {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, cx: &'a RunCx) -> Work<'a> {
        let ends: Vec<usize> = match cx.requests().count() {
            0 | 1 => Vec::new(),
            _ => cx.requests().map(|(_, rows)| rows.end).collect(),
        };
        self.prepared.call_with(input, move |kernel, rows| kernel.fill(&rows, &ends))
    }
}

#[derive(Debug)]
struct ImputeKernel {
    columns: Vec<ImputeColumn>,
    layout: Layout,
}

#[derive(Debug)]
struct ImputeColumn {
    at: usize,
    /// One row: the value for what is missing.
    fill: ArrayRef,
    last: bool,
    /// NaN counts as missing.
    nan: bool,
}

impl Kernel for ImputeKernel {
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
        self.fill(&rows, &[])
    }
}

impl ImputeKernel {
    /// `ends` are the ends of the requests in the run's input, or nothing when there is only one request.
    fn fill(&self, rows: &Rows, ends: &[usize]) -> StepResult {
        let mut new = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let array = rows.batch().column(column.at);
            new.push(match missing(array, column.nan) {
                None => Arc::clone(array),
                Some(missing) => column.fill(array, &missing, rows.origin(), ends)?,
            });
        }
        Ok(Output::one(self.layout.rows(rows, &new)?))
    }
}

impl ImputeColumn {
    fn fill(
        &self,
        array: &ArrayRef,
        missing: &[bool],
        origin: &Origin,
        ends: &[usize],
    ) -> Result<ArrayRef, StepError> {
        const COLUMN: usize = 0;
        const FILL: (usize, usize) = (1, 0);
        let mut last = FILL;
        let mut request = None;
        let picked: Vec<(usize, usize)> = missing
            .iter()
            .enumerate()
            .map(|(row, &missing)| {
                let now = request_of(row, origin, ends);
                if request != Some(now) {
                    request = Some(now);
                    last = FILL;
                }
                if !missing {
                    last = (COLUMN, row);
                    last
                } else if self.last {
                    last
                } else {
                    FILL
                }
            })
            .collect();
        Ok(interleave(&[array.as_ref(), self.fill.as_ref()], &picked)?)
    }
}

/// Which request of the run a row belongs to.
fn request_of(row: usize, origin: &Origin, ends: &[usize]) -> usize {
    let row = match origin {
        Origin::Picked(at) => at.get(row).map_or(row, |&at| at as usize),
        Origin::Whole | Origin::Lost => row,
    };
    ends.partition_point(|&end| end <= row)
}

/// Which rows are missing; `None` when none is.
fn missing(array: &ArrayRef, nan: bool) -> Option<Vec<bool>> {
    fn rows(array: &ArrayRef, is_nan: impl Fn(usize) -> bool) -> Option<Vec<bool>> {
        let missing = |row: usize| array.is_null(row) || is_nan(row);
        (0..array.len()).any(missing).then(|| (0..array.len()).map(missing).collect())
    }
    match (nan, array.as_primitive_opt::<Float64Type>(), array.as_primitive_opt::<Float32Type>()) {
        (true, Some(floats), _) => rows(array, |row| floats.value(row).is_nan()),
        (true, _, Some(floats)) => rows(array, |row| floats.value(row).is_nan()),
        _ if array.null_count() == 0 => None,
        _ => rows(array, |_| false),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::testing::batch;

    /// The filled column of requests that end at `ends`.
    fn filled(rows: &Rows, ends: &[usize]) -> Vec<i64> {
        let step = Impute::new().column("a", Fill::Last(0.into()));
        let kernel = step.prepare(rows.schema()).unwrap();
        let (ports, _, _) = kernel.fill(rows, ends).unwrap().into_parts();
        ports[0].1.batch().column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn last_never_looks_into_another_request() {
        let batch = batch! { a: [Some(1i64), None, None, Some(4), None, None] };
        let rows = Rows::whole(batch);
        assert_eq!(filled(&rows, &[]), [1, 1, 1, 4, 4, 4]);
        assert_eq!(filled(&rows, &[2, 4, 5, 6]), [1, 1, 0, 4, 0, 0]);
        // Of four requests of two rows each, the rows 0, 1, 3, 4, 5 and 6 are left.
        let rows = Rows::with_origin(rows.batch().clone(), Origin::Picked([0, 1, 3, 4, 5, 6].into()));
        assert_eq!(filled(&rows, &[2, 4, 6, 8]), [1, 1, 0, 4, 4, 0]);
    }
}

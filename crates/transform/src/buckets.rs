//! `bucketize`: numbers as the buckets that they fall into.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int64Array},
    compute::take,
    datatypes::{DataType, Field, SchemaRef},
};
use indexmap::IndexMap;
use millstream_graph::{Input, Output, Rows, RunCx, SchemaError, Signature, Step, StepResult, Work};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    map::numbers,
    prepared::{Kernel, Layout, LayoutBuilder, Prepared, column_problem, each_column},
};

/// How the numbers of one column fall into buckets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buckets {
    /// The edges between the buckets, ascending. A number on an edge belongs to the bucket above it.
    edges: Vec<f64>,
    /// The names of the buckets, one more than edges; without them buckets are counted from 0.
    #[serde(default)]
    labels: Vec<String>,
    /// The name of a new column for the result; without it the result replaces the column.
    #[serde(rename = "as")]
    to: Option<String>,
}

impl Buckets {
    /// Buckets between ascending edges, counted from 0: below the first edge, from each edge on, from the last on.
    pub fn new(edges: impl IntoIterator<Item = f64>) -> Self {
        Self { edges: edges.into_iter().collect(), ..Self::default() }
    }

    /// Names the buckets.
    #[must_use]
    pub fn labels<T: Into<String>>(mut self, labels: impl IntoIterator<Item = T>) -> Self {
        self.labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Puts the result into a new column.
    #[must_use]
    pub fn to(mut self, name: impl Into<String>) -> Self {
        self.to = Some(name.into());
        self
    }
}

/// Replaces numbers by the bucket that they fall into: bucket `i` has the numbers `edge[i-1] <= x < edge[i]`.
///
/// Null stays null, and NaN, which is in no bucket, becomes null.
///
/// ```
/// use millstream_transform::{Bucketize, Buckets};
/// let step = Bucketize::new().column("amount", Buckets::new([10.0, 100.0]).labels(["small", "medium", "large"]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Bucketize {
    columns: IndexMap<String, Buckets>,
    prepared: Prepared<BucketizeKernel>,
}

/// Numbers that become the bucket they fall into.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketizeSettings {
    /// The buckets of each column.
    columns: IndexMap<String, Buckets>,
}

impl Bucketize {
    /// No columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the numbers of `column` into buckets.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>, buckets: Buckets) -> Self {
        self.columns.insert(column.into(), buckets);
        self
    }

    fn prepare(&self, schema: &SchemaRef) -> Result<BucketizeKernel, SchemaError> {
        let columns = each_column(schema, &self.columns, |at, name, buckets| {
            let problem = |problem: String| Err(column_problem(name, problem));
            let field = schema.field(at);
            if !field.data_type().is_numeric() {
                return problem(format!("buckets need numbers, not {}", field.data_type()));
            }
            if buckets.edges.is_empty() {
                return problem("it has no edges".to_owned());
            }
            if !buckets.edges.windows(2).all(|pair| pair[0] < pair[1]) || buckets.edges[0].is_nan() {
                return problem("its edges are not ascending".to_owned());
            }
            if !buckets.labels.is_empty() && buckets.labels.len() != buckets.edges.len() + 1 {
                return problem(format!(
                    "{} edges make {} buckets, but there are {} labels",
                    buckets.edges.len(),
                    buckets.edges.len() + 1,
                    buckets.labels.len()
                ));
            }
            let labels: Option<ArrayRef> = (!buckets.labels.is_empty())
                .then(|| Arc::new(arrow::array::StringArray::from(buckets.labels.clone())) as ArrayRef);
            Ok((Bucketed { at, edges: buckets.edges.clone(), labels }, buckets.to.as_deref()))
        })?;
        let mut layout = LayoutBuilder::new(schema);
        let mut bucketed = Vec::with_capacity(columns.len());
        for (column, to) in columns {
            let data_type =
                column.labels.as_ref().map_or(DataType::Int64, |labels| labels.data_type().clone());
            let source = schema.field(column.at);
            let nullable = source.is_nullable() || source.data_type().is_floating();
            match to {
                Some(to) => layout.append(Arc::new(Field::new(to, data_type, nullable))),
                None => {
                    layout.replace(column.at, [Arc::new(Field::new(source.name(), data_type, nullable))]);
                }
            }
            bucketed.push(column);
        }
        Ok(BucketizeKernel { columns: bucketed, layout: layout.finish()? })
    }
}

impl From<BucketizeSettings> for Bucketize {
    fn from(settings: BucketizeSettings) -> Self {
        Self { columns: settings.columns, prepared: Prepared::default() }
    }
}

impl Step for Bucketize {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        self.prepared.sign(self, inputs, |schema| self.prepare(schema))
    }

    fn call<'a>(&'a self, input: Input, _cx: &'a RunCx) -> Work<'a> {
        self.prepared.call(input)
    }
}

#[derive(Debug)]
struct BucketizeKernel {
    columns: Vec<Bucketed>,
    layout: Layout,
}

#[derive(Debug)]
struct Bucketed {
    at: usize,
    edges: Vec<f64>,
    labels: Option<ArrayRef>,
}

impl Kernel for BucketizeKernel {
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
        let mut new: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let numbers = numbers(rows.batch().column(column.at))?;
            let bucket = |number: f64| {
                (!number.is_nan()).then(|| column.edges.partition_point(|&edge| edge <= number) as i64)
            };
            let buckets: Int64Array = numbers.iter().map(|number| number.and_then(bucket)).collect();
            new.push(match &column.labels {
                None => Arc::new(buckets),
                Some(labels) => take(labels, &buckets, None)?,
            });
        }
        Ok(Output::one(self.layout.rows(&rows, &new)?))
    }
}

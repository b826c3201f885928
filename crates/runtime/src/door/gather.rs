//! How the rows of several requests become one batch.

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef, error::ArrowError};
use smallvec::SmallVec;

use crate::{RunError, engine::with_schema_of};

/// How the rows of several requests become one batch.
pub trait Gather: Send + Sync + 'static {
    /// What one request brings.
    type Part: Send;
    /// What has been brought so far.
    type Gathered: Default + Send;

    /// The rows that a request brings.
    fn rows(&self, part: &Self::Part) -> usize;

    /// Looks at what a request brings, before it meets others.
    ///
    /// # Errors
    /// When it does not fit the plan; then it harms no other request.
    fn fit(&self, part: Self::Part) -> Result<Self::Part, RunError> {
        Ok(part)
    }

    /// Adds what a request brings. This happens while other requests wait to do the same: it only copies.
    fn add(&self, gathered: &mut Self::Gathered, part: Self::Part);

    /// The rows of all parts, in the order in which they were added, under the plan's input schema.
    ///
    /// # Errors
    /// When they cannot be put together, such as for want of room in offsets of 32 bits.
    fn batch(&self, gathered: Self::Gathered) -> Result<RecordBatch, ArrowError>;
}

/// Gathers batches by appending them.
#[derive(Debug)]
pub struct Append {
    schema: SchemaRef,
}

impl Append {
    /// Appends batches of this schema.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

impl Gather for Append {
    type Part = RecordBatch;
    type Gathered = SmallVec<[RecordBatch; 1]>;

    fn rows(&self, part: &RecordBatch) -> usize {
        part.num_rows()
    }

    fn fit(&self, part: RecordBatch) -> Result<RecordBatch, RunError> {
        with_schema_of(&self.schema, part)
    }

    fn add(&self, gathered: &mut Self::Gathered, part: RecordBatch) {
        gathered.push(part);
    }

    fn batch(&self, mut gathered: Self::Gathered) -> Result<RecordBatch, ArrowError> {
        match (gathered.len(), gathered.pop()) {
            (1, Some(one)) => Ok(one),
            (_, last) => {
                gathered.extend(last);
                concat_batches(&self.schema, &gathered)
            }
        }
    }
}

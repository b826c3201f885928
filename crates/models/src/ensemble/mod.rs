//! Several models' answers made into one.

mod combine;
mod settings;
mod unite;

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_graph::{
    Effect, ErrorKind, FailedRows, Input, Narrow, OutPort, Output, RowFlow, Rows, RunCx, SchemaError,
    Signature, Step, StepError, StepResult, Token, Work,
};
pub use settings::{EnsembleSettings, Members, Method, Missing};

use crate::{Keep, columns::unknown_column};
use combine::{Combined, Combiner};

/// Makes one column of the members' columns: a weighted mean, a vote, the largest, or what a closure says.
///
/// It takes the members' columns side by side on one in-port, or one in-port per branch: then columns of the same
/// name are taken to be one column carried along (their values must agree), rows are matched by where they stood in
/// the request, and a branch that was skipped is a member that is missing.
///
/// ```
/// use millstream_models::{Ensemble, Missing};
/// let blend = Ensemble::weighted_mean("score", [("lgbm", 0.5), ("lr", 0.2), ("mlp", 0.3)])
///     .missing(Missing::Renormalise);
/// let worst = Ensemble::with("score", ["lgbm", "lr"], |members| members[0].unwrap_or(1.0).max(members[1].unwrap_or(1.0)));
/// # let _ = (blend, worst);
/// ```
pub struct Ensemble {
    name: String,
    members: Vec<(String, f64)>,
    rule: Rule,
    missing: Missing,
    keep: Keep,
    plan: OnceLock<Arc<Plan>>,
}

type Closure = Arc<dyn Fn(&[Option<f64>]) -> f64 + Send + Sync>;

#[derive(Clone)]
enum Rule {
    WeightedMean,
    MajorityVote,
    Max,
    Custom(Closure),
}

impl Ensemble {
    /// The mean of the members, weighted. Weights are finite and not negative, and are scaled to a sum of 1; the sum
    /// is taken in the order given, in 64 bits.
    pub fn weighted_mean<N: Into<String>>(
        name: impl Into<String>,
        members: impl IntoIterator<Item = (N, f64)>,
    ) -> Self {
        Self::of(name, members, Rule::WeightedMean)
    }

    /// The class with the largest sum of weights. Classes are whole numbers or texts; of classes that draw level, the
    /// lowest wins.
    pub fn majority_vote<N: Into<String>>(
        name: impl Into<String>,
        members: impl IntoIterator<Item = (N, f64)>,
    ) -> Self {
        Self::of(name, members, Rule::MajorityVote)
    }

    /// The largest of the members. A NaN makes it NaN.
    pub fn max<N: Into<String>>(name: impl Into<String>, members: impl IntoIterator<Item = N>) -> Self {
        Self::of(name, members.into_iter().map(|member| (member, 1.0)), Rule::Max)
    }

    /// What `combine` makes of each row: it is given the members in the order of their names, `None` for one that is
    /// missing and left out.
    pub fn with<N: Into<String>>(
        name: impl Into<String>,
        members: impl IntoIterator<Item = N>,
        combine: impl Fn(&[Option<f64>]) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self::of(name, members.into_iter().map(|member| (member, 1.0)), Rule::Custom(Arc::new(combine)))
    }

    fn of<N: Into<String>>(
        name: impl Into<String>,
        members: impl IntoIterator<Item = (N, f64)>,
        rule: Rule,
    ) -> Self {
        Self {
            name: name.into(),
            members: members.into_iter().map(|(member, weight)| (member.into(), weight)).collect(),
            rule,
            missing: Missing::Fail,
            keep: Keep::All,
            plan: OnceLock::new(),
        }
    }

    /// What happens when a member has no value for a row; it fails, unless this says otherwise.
    #[must_use]
    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// Which of the columns that come in are passed on; all, unless this says otherwise.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// The weights, scaled to a sum of 1 unless that is what they have.
    fn weights(&self) -> Result<Vec<f64>, SchemaError> {
        let mut errors = Vec::new();
        if self.members.is_empty() {
            errors.push(SchemaError::new("an ensemble needs at least one member"));
        }
        for (i, (member, weight)) in self.members.iter().enumerate() {
            if !weight.is_finite() || *weight < 0.0 {
                let problem = format!(
                    "the weight of member `{member}` is {weight}; it must be finite and not negative"
                );
                errors.push(SchemaError::new(problem));
            }
            if self.members[..i].iter().any(|(known, _)| known == member) {
                errors.push(SchemaError::new(format!("member `{member}` is named twice")));
            }
        }
        SchemaError::collect(errors)?;
        let sum: f64 = self.members.iter().map(|(_, weight)| weight).sum();
        if !sum.is_finite() || sum <= 0.0 {
            return Err(SchemaError::new(format!(
                "the weights add up to {sum}; the sum must be finite and above 0"
            )));
        }
        // Weights that already add up stay as they were written: 0.5, 0.2 and 0.3 give exactly that mean.
        let scale = |weight: f64| if (sum - 1.0).abs() <= 1e-12 { weight } else { weight / sum };
        Ok(self.members.iter().map(|(_, weight)| scale(*weight)).collect())
    }

    /// The same step, not typed yet.
    fn untyped(&self) -> Self {
        Self {
            name: self.name.clone(),
            members: self.members.clone(),
            rule: self.rule.clone(),
            missing: self.missing.clone(),
            keep: self.keep.clone(),
            plan: OnceLock::new(),
        }
    }

    /// Per in-port: the members, what `keep` names, and columns that several in-ports carry, since their values must agree.
    fn reads(&self, inputs: &[SchemaRef]) -> Vec<Vec<usize>> {
        let carried = |name: &str| inputs.iter().filter(|schema| schema.index_of(name).is_ok()).count() > 1;
        let kept =
            |name: &str| matches!(&self.keep, Keep::Columns(names) if names.iter().any(|kept| kept == name));
        let reads =
            |name: &str| self.members.iter().any(|(member, _)| member == name) || kept(name) || carried(name);
        let of = |schema: &SchemaRef| {
            (0..schema.fields().len()).filter(|&at| reads(schema.field(at).name())).collect()
        };
        inputs.iter().map(of).collect()
    }

    fn plan(&self, inputs: &[SchemaRef]) -> Result<Plan, SchemaError> {
        let union = match inputs {
            [] => return Err(SchemaError::new("an ensemble takes at least one input")),
            [_] => None,
            several => Some(unite::plan(several)?),
        };
        let schema = union.as_ref().map_or_else(|| Arc::clone(&inputs[0]), |union| Arc::clone(&union.schema));
        let mut errors = Vec::new();
        let weights = self.weights().map_err(|error| errors.push(error)).unwrap_or_default();
        let mut members = Vec::new();
        for (member, _) in &self.members {
            match schema.index_of(member) {
                Ok(column) => members.push(column),
                Err(_) => errors.push(unknown_column(member, &schema)),
            }
        }
        let combiner = match self.combiner(&schema, &members, weights) {
            Ok(combiner) => Some(combiner),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let kept = self.keep.indices(&schema).map_err(|error| errors.push(error)).unwrap_or_default();
        if kept.iter().any(|&column| schema.field(column).name() == &self.name) {
            errors.push(SchemaError::new(format!(
                "column `{}` is there already; name the result otherwise",
                self.name
            )));
        }
        let (Ok(()), Some(combiner)) = (SchemaError::collect(errors.clone()), combiner) else {
            return SchemaError::collect(errors).and(Err(SchemaError::new("the ensemble cannot be typed")));
        };
        let mut fields: Vec<_> = kept.iter().map(|&column| Arc::clone(&schema.fields()[column])).collect();
        fields.push(Arc::new(Field::new(&self.name, combiner.data_type(), false)));
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Ok(Plan { union, combiner, kept, schema })
    }

    fn combiner(
        &self,
        schema: &Schema,
        members: &[usize],
        weights: Vec<f64>,
    ) -> Result<Combiner, SchemaError> {
        let names = self.members.iter().map(|(member, _)| member.clone()).collect();
        let types: Vec<&DataType> = members.iter().map(|&column| schema.field(column).data_type()).collect();
        Combiner::new(&self.rule, names, members.to_vec(), &types, weights, &self.missing)
    }
}

impl Step for Ensemble {
    fn signature(&self, inputs: &[SchemaRef]) -> Result<Signature, SchemaError> {
        let plan = self.plan(inputs)?;
        let flow = if plan.union.is_some() { RowFlow::Merged } else { RowFlow::Same };
        let port = OutPort::new("out", Arc::clone(&plan.schema), flow);
        let step = self.untyped();
        let narrow = Narrow::new(self.reads(inputs), move |_| step.untyped());
        let _ = self.plan.set(Arc::new(plan));
        Ok(Signature::ports(vec![port]).with_effect(Effect::None).narrowing(narrow))
    }

    fn call<'a>(&'a self, input: Input, _: &'a RunCx) -> Work<'a> {
        let Some(plan) = self.plan.get() else {
            return Work::Done(Err(StepError::internal("the step has not been typed")));
        };
        let tokens = input.into_tokens();
        let rows =
            tokens.iter().map(|token| if let Token::Rows(rows) = token { rows.len() } else { 0 }).max();
        if rows.unwrap_or(0) <= INLINE_ROWS {
            return Work::Done(plan.run(&tokens));
        }
        let plan = Arc::clone(plan);
        Work::Compute(Box::new(move || plan.run(&tokens)))
    }
}

/// Up to this many rows are combined on the spot: it takes microseconds.
const INLINE_ROWS: usize = 1024;

/// Everything that is known once the schemas are.
struct Plan {
    union: Option<unite::Union>,
    combiner: Combiner,
    kept: Vec<usize>,
    schema: SchemaRef,
}

impl Plan {
    fn run(&self, tokens: &[Token]) -> StepResult {
        let united;
        let rows = match (&self.union, tokens) {
            (Some(union), tokens) => {
                united = unite::unite(union, tokens)?;
                &united
            }
            (None, [Token::Rows(rows)]) => rows,
            (None, _) => {
                return Err(StepError::internal("the ensemble's in-port carries no rows in this run"));
            }
        };
        let combined = self.combiner.combine(rows.batch())?;
        if combined.failed.is_empty() {
            return self.output(rows, combined.column, combined.degraded);
        }
        self.fail_some(tokens, rows, combined)
    }

    fn output(&self, rows: &Rows, column: ArrayRef, degraded: Option<String>) -> StepResult {
        let batch = rows.batch();
        let columns = self.kept.iter().map(|&at| Arc::clone(batch.column(at))).chain([column]).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let output = Output::one(rows.replace(batch)?);
        Ok(match degraded {
            Some(reason) => output.degraded(reason),
            None => output,
        })
    }

    /// Sends the rows that could not be combined to the error port, as they came in.
    fn fail_some(&self, tokens: &[Token], rows: &Rows, combined: Combined) -> StepResult {
        let (bad, messages): (Vec<u32>, Vec<String>) = combined.failed.into_iter().unzip();
        let failed = match (&self.union, tokens) {
            (None, _) => rows.take(&bad)?,
            // Rows fail as rows of in-port 0. Without them there, the run fails as a whole.
            (Some(_), [Token::Rows(first), ..]) if first.origin() == rows.origin() => first.take(&bad)?,
            _ => {
                return Err(StepError::new(
                    ErrorKind::Unavailable,
                    messages.into_iter().next().unwrap_or_default(),
                ));
            }
        };
        let failed = FailedRows { rows: failed, messages };
        let mut at = bad.iter().copied().peekable();
        let good: Vec<u32> = (0..rows.len() as u32).filter(|row| at.next_if_eq(row).is_none()).collect();
        if good.is_empty() {
            return Ok(Output::none().with_failed(failed));
        }
        let good = rows.take(&good)?;
        let combined = self.combiner.combine(good.batch())?;
        Ok(self.output(&good, combined.column, combined.degraded)?.with_failed(failed))
    }
}

#[cfg(test)]
mod tests;

//! When a vote is decided: whatever the members say that have not voted, an ensemble behind the quorum makes the same of it.

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, StringArray},
    compute::cast,
    datatypes::{DataType, FieldRef, Int64Type},
};
use millstream_graph::{Rows, SchemaError, StepError, suggest};
use smallvec::SmallVec;

use super::{Added, in_place};

/// Sums of weights that are no farther apart draw level, and the lowest class wins: the rule of `majority_vote` of an ensemble.
const DRAW: f64 = 1e-12;

/// Who votes on what, typed.
pub(super) struct Vote {
    members: Vec<Member>,
    classes: Classes,
    /// No sum of the members' weights is off by more, in whichever order they are added.
    slack: f64,
}

struct Member {
    step: usize,
    /// Where it stands in the answer of its step.
    column: usize,
    /// Its part of all weights, as the ensemble takes it.
    weight: f64,
}

#[derive(Clone, Copy)]
enum Classes {
    Ints,
    Texts,
}

impl Vote {
    /// The vote of columns that the steps add, with weights.
    pub(super) fn new(
        members: &[(String, f64)],
        steps: &[&str],
        added: &[Added],
    ) -> Result<Self, SchemaError> {
        let mut problems = Vec::new();
        let weights = weights(members).map_err(|error| problems.push(error)).unwrap_or_default();
        let mut columns: Vec<(usize, usize, &FieldRef)> = Vec::new();
        for (step, own) in added.iter().enumerate() {
            columns.extend(own.iter().map(|(at, field)| (step, *at, field)));
        }
        let names = || columns.iter().map(|(_, _, field)| field.name().as_str());
        let mut found = Vec::new();
        for (member, _) in members {
            match columns.iter().find(|(_, _, field)| field.name() == member) {
                Some(column) => found.push(*column),
                None => {
                    let unknown = suggest::unknown("column", member, names());
                    problems.push(SchemaError::new(format!("`vote`: the steps add {unknown}")));
                }
            }
        }
        for (at, step) in steps.iter().enumerate() {
            let votes = |(_, field): &(usize, FieldRef)| members.iter().any(|(name, _)| name == field.name());
            if !added[at].iter().any(votes) {
                problems.push(SchemaError::new(format!("`{step}`: it adds no column of the `vote`")));
            }
        }
        let classes = classes(found.iter().map(|(_, _, field)| *field))
            .map_err(|error| problems.push(error))
            .unwrap_or(Classes::Ints);
        SchemaError::collect(problems)?;
        let members = found.into_iter().zip(weights);
        let members: Vec<_> =
            members.map(|((step, column, _), weight)| Member { step, column, weight }).collect();
        let slack = 8.0 * f64::EPSILON * members.len() as f64;
        Ok(Self { members, classes, slack })
    }

    /// Whether one class of a row wins, whatever the members say that have not voted.
    fn is_decided<C: Copy + Ord>(&self, class: impl Fn(usize) -> Option<C>) -> bool {
        let mut totals: SmallVec<[(C, f64); 8]> = SmallVec::new();
        let mut open = 0.0;
        for (at, member) in self.members.iter().enumerate() {
            let Some(class) = class(at) else {
                open += member.weight;
                continue;
            };
            match totals.iter_mut().find(|(known, _)| *known == class) {
                Some((_, total)) => *total += member.weight,
                None => totals.push((class, member.weight)),
            }
        }
        totals.iter().any(|winner| self.wins(*winner, &totals, open))
    }

    /// Whether a class wins when any one of the others gets all that is open, which is the worst that can happen to it.
    fn wins<C: Copy + Ord>(&self, (winner, most): (C, f64), totals: &[(C, f64)], open: f64) -> bool {
        let ahead = |of: f64| most - of > DRAW + self.slack;
        let level = |of: f64| of - most <= DRAW - self.slack;
        // A class that nobody has named yet may be the lowest.
        ahead(open)
            && totals
                .iter()
                .filter(|(class, _)| *class != winner)
                .all(|(class, total)| if *class < winner { ahead(total + open) } else { level(total + open) })
    }
}

/// The weights as parts of their sum, by the arithmetic of the ensemble.
fn weights(members: &[(String, f64)]) -> Result<Vec<f64>, SchemaError> {
    let mut problems = Vec::new();
    let mut wrong = |problem: String| problems.push(SchemaError::new(format!("`vote`: {problem}")));
    if members.is_empty() {
        wrong("it names no column".to_owned());
    }
    for (at, (member, weight)) in members.iter().enumerate() {
        if !weight.is_finite() || *weight < 0.0 {
            wrong(format!("the weight of `{member}` is {weight}; it must be finite and not negative"));
        }
        if members[..at].iter().any(|(known, _)| known == member) {
            wrong(format!("`{member}` is named twice"));
        }
    }
    SchemaError::collect(problems)?;
    let sum: f64 = members.iter().map(|(_, weight)| weight).sum();
    if !sum.is_finite() || sum <= 0.0 {
        let problem = format!("`vote`: the weights add up to {sum}; the sum must be finite and above 0");
        return Err(SchemaError::new(problem));
    }
    let part = |weight: f64| if (sum - 1.0).abs() <= 1e-12 { weight } else { weight / sum };
    Ok(members.iter().map(|(_, weight)| part(*weight)).collect())
}

/// What the columns hold: whole numbers, or texts when the first does.
fn classes<'f>(fields: impl Iterator<Item = &'f FieldRef> + Clone) -> Result<Classes, SchemaError> {
    let texts = fields.clone().next().is_some_and(|first| is_text(first.data_type()));
    let suits = |kind: &DataType| match texts {
        true => is_text(kind),
        // Those of 64 bits without a sign do not all fit in 64 bits with one.
        false => *kind == DataType::Boolean || (kind.is_integer() && *kind != DataType::UInt64),
    };
    let wanted = if texts { "texts, like the first" } else { "whole numbers up to 63 bits, or texts" };
    SchemaError::collect(fields.filter(|field| !suits(field.data_type())).map(|field| {
        let (name, kind) = (field.name(), field.data_type());
        SchemaError::new(format!("`vote`: column `{name}` is {kind}, but a vote takes {wanted}"))
    }))?;
    Ok(if texts { Classes::Texts } else { Classes::Ints })
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// What has been voted so far. A null is no vote: the ensemble leaves it out or replaces it, by settings that are not known here.
pub(super) struct Votes<'v> {
    vote: &'v Vote,
    polled: Polled,
}

/// By member, its column over all rows.
enum Polled {
    Ints(Vec<Option<Int64Array>>),
    Texts(Vec<Option<StringArray>>),
}

impl<'v> Votes<'v> {
    pub(super) fn new(vote: &'v Vote) -> Self {
        let members = vote.members.len();
        let polled = match vote.classes {
            Classes::Ints => Polled::Ints(vec![None; members]),
            Classes::Texts => Polled::Texts(vec![None; members]),
        };
        Self { vote, polled }
    }

    /// Counts the answer of a step, which is to `which` of so many rows.
    pub(super) fn put(
        &mut self,
        step: usize,
        answer: &Rows,
        which: &[usize],
        rows: usize,
    ) -> Result<(), StepError> {
        for (at, member) in self.vote.members.iter().enumerate().filter(|(_, member)| member.step == step) {
            let column: ArrayRef = in_place(answer.batch().column(member.column), which, rows)?;
            match &mut self.polled {
                Polled::Ints(columns) => {
                    let column = cast(&column, &DataType::Int64)?;
                    columns[at] = column.as_primitive_opt::<Int64Type>().cloned();
                }
                Polled::Texts(columns) => {
                    columns[at] = cast(&column, &DataType::Utf8)?.as_string_opt::<i32>().cloned();
                }
            }
        }
        Ok(())
    }

    /// Whether no answer that is still to come changes the vote of a row.
    pub(super) fn is_decided(&self, row: usize) -> bool {
        match &self.polled {
            Polled::Ints(columns) => self.vote.is_decided(|member| {
                let column = columns[member].as_ref()?;
                column.is_valid(row).then(|| column.value(row))
            }),
            Polled::Texts(columns) => self.vote.is_decided(|member| {
                let column = columns[member].as_ref()?;
                column.is_valid(row).then(|| column.value(row))
            }),
        }
    }
}

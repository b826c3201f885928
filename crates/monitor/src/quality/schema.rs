//! The columns of a port beside those of its reference.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    layout::{Kind, Watching, kind},
    reference::Reference,
    report::RuleOutcome,
    sketch::Sketch,
};

/// A port is expected to have the columns of its reference, of the same kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaRule {
    /// Columns that only one of both needs to have: a label, an id.
    #[serde(default)]
    pub except: Vec<String>,
}

/// The columns of a port that are held against those of a reference.
#[derive(Clone, Debug)]
pub struct SchemaCheck {
    /// By name; whether whole numbers are categories.
    live: BTreeMap<String, (DataType, bool)>,
    /// Whether only these are asked about.
    chosen: bool,
    except: Vec<String>,
}

/// Differences that are told one by one.
const MOST: usize = 19;

impl SchemaCheck {
    /// Of a port with rows of a schema. If only some of its columns are watched, only those are held against the reference.
    pub fn new(rule: &SchemaRule, schema: &Schema, watching: &Watching<'_>) -> Self {
        let chosen = !watching.columns.is_empty();
        let fields = schema.fields().iter();
        let asked = fields.filter(|field| !chosen || watching.columns.contains(field.name()));
        let live = asked.map(|field| {
            let categorical = watching.categorical.contains(field.name());
            (field.name().clone(), (field.data_type().clone(), categorical))
        });
        Self { live: live.collect(), chosen, except: rule.except.clone() }
    }

    /// Every difference, as a rule that is broken; one that is kept if there is none.
    pub fn outcomes(&self, reference: &Reference) -> Vec<RuleOutcome> {
        let before = &reference.pane.columns;
        let missing = before.keys().filter(|name| !self.live.contains_key(*name) && !self.chosen);
        let names: Vec<&String> =
            self.live.keys().chain(missing).filter(|name| !self.except.contains(name)).collect();
        let checked = names.len() as u64;
        let mut differences: Vec<String> = names
            .into_iter()
            .filter_map(|name| match (self.live.get(name), before.get(name)) {
                (Some(live), Some(sketch)) => changed(name, live, sketch, reference),
                (Some(_), None) => Some(format!("`{name}` is not in the reference")),
                (None, _) => Some(format!("`{name}` of the reference is missing")),
            })
            .collect();
        let outcome = |rule: String, broken: u64| RuleOutcome { rule, broken, checked, ok: broken == 0 };
        if differences.is_empty() {
            return vec![outcome("schema: the columns of the reference".to_owned(), 0)];
        }
        let more = differences.len().saturating_sub(MOST);
        differences.truncate(MOST);
        let told = differences.into_iter().map(|difference| outcome(format!("schema: {difference}"), 1));
        let rest = (more > 0).then(|| outcome(format!("schema: {more} more columns differ"), more as u64));
        told.chain(rest).collect()
    }
}

/// How a column that both have differs.
fn changed(
    name: &str,
    (data_type, categorical): &(DataType, bool),
    before: &Sketch,
    reference: &Reference,
) -> Option<String> {
    let now = match kind(data_type, *categorical, reference.column(name)) {
        Kind::Numeric { .. } => "numbers",
        Kind::Categorical(_) => "categories",
        Kind::Time => "times",
        Kind::Presence => OTHERS,
    };
    let before = match before {
        Sketch::Numbers(_) => "numbers",
        Sketch::Labels(_) => "categories",
        Sketch::Times(_) => "times",
        Sketch::Presence(_) => OTHERS,
    };
    // Statistics of earlier versions have no times.
    let same = now == before || (now == "times" && before == OTHERS);
    (!same).then(|| format!("`{name}` has {now}, and {before} in the reference"))
}

const OTHERS: &str = "values of another type";

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
    use millstream_graph::rows;

    use super::*;
    use crate::reference::ReferenceOptions;

    fn train() -> RecordBatch {
        let batch =
            rows! { amount: [1.0, 2.0], class: [1_i64, 2], country: ["de", "fr"], repaid: [true, false] };
        let at = std::sync::Arc::new(TimestampMicrosecondArray::from(vec![5, 6])) as ArrayRef;
        let columns: Vec<(String, ArrayRef)> = batch
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .zip(batch.columns().iter().cloned())
            .chain([("at".to_owned(), at)])
            .collect();
        RecordBatch::try_from_iter(columns).unwrap()
    }

    /// Rules, of how many columns, and whether they are kept.
    type Told = Vec<(String, u64, bool)>;

    fn outcomes(live: &RecordBatch, columns: &[&str], except: &[&str]) -> Told {
        let owned = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let class = owned(&["class"]);
        let options = ReferenceOptions { categorical: &class, ..ReferenceOptions::default() };
        let reference = Reference::of(&[train()], &options).unwrap();
        let columns = owned(columns);
        let watching = Watching { columns: &columns, ..Watching::default() };
        let check = SchemaCheck::new(&SchemaRule { except: owned(except) }, &live.schema(), &watching);
        let outcomes = check.outcomes(&reference).into_iter();
        outcomes.map(|outcome| (outcome.rule, outcome.checked, outcome.ok)).collect()
    }

    #[test]
    fn what_differs_from_the_columns_of_the_reference_is_a_broken_rule_each() {
        let kept = |checked: u64| vec![("schema: the columns of the reference".to_owned(), checked, true)];
        let broken = |checked: u64, texts: &[&str]| -> Told {
            texts.iter().map(|text| (format!("schema: {text}"), checked, false)).collect()
        };
        let short = rows! { amount: [1_i64], class: [7_i64] };
        let other = rows! { amount: ["1"], class: [1.5], note: ["x"] };
        type Names<'n> = &'n [&'n str];
        let cases: [(RecordBatch, Names<'_>, Names<'_>, Told); 6] = [
            (train(), &[], &[], kept(5)),
            (
                short.clone(),
                &[],
                &[],
                broken(
                    5,
                    &[
                        "`at` of the reference is missing",
                        "`country` of the reference is missing",
                        "`repaid` of the reference is missing",
                    ],
                ),
            ),
            (short.clone(), &[], &["at", "country", "repaid"], kept(2)),
            (short, &["amount"], &[], kept(1)),
            (
                other.clone(),
                &["amount", "class", "note"],
                &[],
                broken(
                    3,
                    &[
                        "`amount` has categories, and numbers in the reference",
                        "`class` has numbers, and categories in the reference",
                        "`note` is not in the reference",
                    ],
                ),
            ),
            (other, &["note"], &["note"], kept(0)),
        ];
        for (live, columns, except, expected) in cases {
            assert_eq!(outcomes(&live, columns, except), expected, "{columns:?} {except:?}");
        }
    }

    #[test]
    fn of_very_many_differences_the_first_are_told_and_the_others_counted() {
        let column = |at: i32| {
            (format!("c{at:02}"), std::sync::Arc::new(arrow::array::Int32Array::from(vec![at])) as ArrayRef)
        };
        let live = RecordBatch::try_from_iter((0..50).map(column)).unwrap();
        let outcomes = outcomes(&live, &[], &["amount", "class", "country", "repaid", "at"]);
        assert_eq!(outcomes.len(), MOST + 1);
        assert_eq!(outcomes[0].0, "schema: `c00` is not in the reference");
        assert_eq!(outcomes[MOST].0, "schema: 31 more columns differ");
    }
}

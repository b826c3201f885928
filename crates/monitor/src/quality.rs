//! What is expected of a column's values, and what of them breaks it.

mod schema;

use millstream_graph::spec::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    report::RuleOutcome,
    sketch::{Bounds, Numbers, Sketch},
};

pub use self::schema::{SchemaCheck, SchemaRule};

/// What is expected of a column. Bounds are shares between 0 and 1, or values of the column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// At most this share of the rows has no value; NaN is none either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nulls: Option<f64>,
    /// No value is below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// No value is above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The share of values outside of `min` and `max` that is tolerated; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<f64>,
    /// At most this share of the values is of categories that the reference does not have. It is not asked where there is no reference,
    /// or one that had too many categories to keep all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<f64>,
    /// At most so many categories occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// The mean lies between these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f64; 2]>,
    /// The latest time in the column is at most so old. Numbers are times since 1970 UTC, in seconds, milliseconds, microseconds or
    /// nanoseconds by their magnitude.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Time>,
}

impl RuleSpec {
    /// What is wrong with its numbers.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let share = |name: &str, share: Option<f64>| {
            let bad = share.is_some_and(|share| !(0.0..=1.0).contains(&share));
            bad.then(|| format!("`{name}` is a share between 0 and 1"))
        };
        let mut mistakes: Vec<String> =
            [share("nulls", self.nulls), share("unseen", self.unseen), share("outside", self.outside)]
                .into_iter()
                .flatten()
                .collect();
        let numbers = [self.min, self.max].into_iter().flatten().chain(self.mean.into_iter().flatten());
        if numbers.into_iter().any(f64::is_nan) {
            mistakes.push("`min`, `max` and `mean` are numbers".to_owned());
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| min > max) {
            mistakes.push("`min` is above `max`".to_owned());
        }
        if self.mean.is_some_and(|[low, high]| low > high) {
            mistakes.push("the first of `mean` is above the second".to_owned());
        }
        mistakes
    }

    /// The range of values that is expected.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { min: self.min, max: self.max }
    }

    /// How each expectation came out, as far as it is known; `unseen` is what [`Reference::unseen`](crate::Reference::unseen) says. How
    /// many values lie outside of a range is known of columns that were counted within it:
    /// [`Watching::rules`](crate::Watching::rules). `at` is when the rows had all come, in microseconds since 1970 UTC.
    pub fn outcomes(&self, sketch: &Sketch, unseen: Option<u64>, at: i64) -> Vec<RuleOutcome> {
        let rows = sketch.rows();
        let mut outcomes = Vec::new();
        let mut add = |rule: String, broken: u64, checked: u64, ok: bool| {
            outcomes.push(RuleOutcome { rule, broken, checked, ok });
        };
        let share = |broken: u64, of: u64| broken as f64 / of.max(1) as f64;
        if let Some(most) = self.nulls {
            let nans = if let Sketch::Numbers(numbers) = sketch { numbers.nans() } else { 0 };
            let broken = sketch.nulls() + nans;
            add(
                format!("at most {most} of the rows without a value"),
                broken,
                rows,
                share(broken, rows) <= most,
            );
        }
        if let Some((most, latest)) = self.freshness.zip(latest(sketch)) {
            let age = u64::try_from(at.saturating_sub(latest)).unwrap_or(0);
            let (ok, values) = (u128::from(age) <= most.0.as_micros(), rows - sketch.nulls());
            add(format!("the latest at most {most} old"), if ok { 0 } else { values }, values, ok);
        }
        match sketch {
            Sketch::Numbers(numbers) => self.of_numbers(numbers, &mut add),
            Sketch::Labels(labels) => {
                if let Some((most, broken)) = self.unseen.zip(unseen) {
                    let values = labels.values();
                    add(
                        format!("at most {most} of the values unseen in the reference"),
                        broken,
                        values,
                        share(broken, values) <= most,
                    );
                }
                if let Some(most) = self.distinct {
                    let distinct = labels.distinct();
                    add(
                        format!("at most {most} categories"),
                        distinct.saturating_sub(most),
                        distinct,
                        distinct <= most,
                    );
                }
            }
            Sketch::Presence(_) | Sketch::Times(_) => {}
        }
        outcomes
    }

    fn of_numbers(&self, numbers: &Numbers, add: &mut impl FnMut(String, u64, u64, bool)) {
        let values = numbers.values() + numbers.infinities();
        if (self.min.is_some() || self.max.is_some())
            && let Some(outside) = numbers.outside(self.bounds())
        {
            let broken = outside + numbers.infinities();
            let rule = match (self.min, self.max) {
                (Some(min), Some(max)) => format!("between {min} and {max}"),
                (Some(min), None) => format!("at least {min}"),
                (_, max) => format!("at most {}", max.unwrap_or(f64::INFINITY)),
            };
            let tolerated = self.outside.unwrap_or(0.0);
            add(rule, broken, values, broken as f64 <= tolerated * values as f64);
        }
        if let Some([low, high]) = self.mean
            && let Some(mean) = numbers.spectrum().mean()
        {
            let ok = (low..=high).contains(&mean);
            add(
                format!("a mean between {low} and {high}"),
                if ok { 0 } else { numbers.values() },
                numbers.values(),
                ok,
            );
        }
    }
}

/// The latest time of a column, in microseconds since 1970 UTC.
fn latest(sketch: &Sketch) -> Option<i64> {
    match sketch {
        Sketch::Times(times) => times.range().map(|range| range.1),
        Sketch::Numbers(numbers) => numbers.range().map(|range| micros(range.1)),
        Sketch::Labels(_) | Sketch::Presence(_) => None,
    }
}

/// A time since 1970 in a unit that its magnitude tells: seconds up to the year 5138, and in the finer units times from 1973 on.
fn micros(time: f64) -> i64 {
    let unit = match time.abs() {
        magnitude if magnitude < 1e11 => 1e6,
        magnitude if magnitude < 1e14 => 1e3,
        magnitude if magnitude < 1e17 => 1.0,
        _ => 1e-3,
    };
    (time * unit) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::{Labels, Times};

    #[test]
    fn what_is_fresh_is_told_by_the_latest_time_whatever_its_unit() {
        const NOW: i64 = 1_796_101_200_000_000;
        let numbers = |latest: f64| {
            let mut numbers = Numbers::new(&[]);
            [latest - 5.0, latest, f64::NAN].into_iter().for_each(|value| numbers.add(&[], value));
            Sketch::Numbers(numbers)
        };
        let times = |latest: i64| {
            let mut times = Times::default();
            times.add(3, (0, latest));
            times.add_nulls(2);
            Sketch::Times(times)
        };
        let (minutes, now) = (60_000_000, NOW as f64);
        let cases = [
            (times(NOW - 10 * minutes), Some((0, 3, true))),
            (times(NOW - 10 * minutes - 1), Some((3, 3, false))),
            (times(NOW + minutes), Some((0, 3, true))),
            (times(i64::MIN), Some((3, 3, false))),
            (numbers(now / 1e6 - 599.0), Some((0, 3, true))),
            (numbers(now / 1e6 - 601.0), Some((3, 3, false))),
            (numbers(now / 1e3 - 601e3), Some((3, 3, false))),
            (numbers(now - 599e6), Some((0, 3, true))),
            (numbers(now - 601e6), Some((3, 3, false))),
            (numbers(now * 1e3 - 599e9), Some((0, 3, true))),
            (numbers(now * 1e3 - 601e9), Some((3, 3, false))),
            (Sketch::Times(Times::default()), None),
            (Sketch::Labels(Labels::new([])), None),
        ];
        let rule: RuleSpec = serde_json::from_str(r#"{"freshness": "10m"}"#).unwrap();
        for (sketch, expected) in cases {
            let outcomes = rule.outcomes(&sketch, None, NOW);
            let outcome = outcomes.first();
            assert_eq!(
                outcome.map(|outcome| (outcome.broken, outcome.checked, outcome.ok)),
                expected,
                "{sketch:?}"
            );
            assert!(outcome.is_none_or(|outcome| outcome.rule == "the latest at most 10m old"));
        }
        assert_eq!(serde_json::to_string(&rule).unwrap(), r#"{"freshness":"10m"}"#);
    }

    fn of(rule: &str, sketch: &Sketch) -> Vec<(u64, u64, bool)> {
        let rule: RuleSpec = serde_json::from_str(rule).unwrap();
        let unseen = if let Sketch::Labels(labels) = sketch { Some(labels.unseen()) } else { None };
        rule.outcomes(sketch, unseen, 0)
            .into_iter()
            .map(|outcome| (outcome.broken, outcome.checked, outcome.ok))
            .collect()
    }

    #[test]
    fn what_breaks_a_rule_is_counted() {
        let bounds = Bounds { min: None, max: Some(10.0) };
        let mut numbers = Numbers::within(&[], bounds);
        [1.0, 2.0, 3.0, 1000.0, f64::NAN].into_iter().for_each(|value| numbers.add(&[], value));
        numbers.add_nulls(5);
        let numbers = Sketch::Numbers(numbers);
        let mut labels = Labels::new(["a"]);
        ["a", "a", "b"].into_iter().for_each(|label| labels.add(label));
        let labels = Sketch::Labels(labels);
        let cases = [
            (r#"{"nulls": 0.5}"#, &numbers, vec![(6, 10, false)]),
            (r#"{"nulls": 0.6}"#, &numbers, vec![(6, 10, true)]),
            (r#"{"min": 1, "max": 1000}"#, &numbers, vec![(0, 4, true)]),
            (r#"{"max": 10}"#, &numbers, vec![(1, 4, false)]),
            (r#"{"max": 10, "outside": 0.25}"#, &numbers, vec![(1, 4, true)]),
            (r#"{"mean": [0, 1]}"#, &numbers, vec![(4, 4, false)]),
            (r#"{"unseen": 0.3, "distinct": 2}"#, &labels, vec![(1, 3, false), (0, 2, true)]),
            (r#"{"unseen": 0.4, "distinct": 1}"#, &labels, vec![(1, 3, true), (1, 2, false)]),
            ("{}", &labels, vec![]),
        ];
        for (rule, sketch, expected) in cases {
            assert_eq!(of(rule, sketch), expected, "{rule}");
        }
    }

    #[test]
    fn values_outside_of_a_range_are_counted_one_by_one() {
        let rule: RuleSpec = serde_json::from_str(r#"{"min": 0, "max": 100.1}"#).unwrap();
        let rules = [("amount".to_owned(), rule.clone())].into_iter().collect();
        let mut values: Vec<f64> = (0..1000).map(|i| 100.0 + f64::from(i) * 1e-4).collect();
        values.extend([100.100_001, 1e9, -1e-9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
        let batch = millstream_graph::rows! { amount: values };
        let watching = crate::Watching { rules: Some(&rules), ..Default::default() };
        let layout = std::sync::Arc::new(crate::Layout::new("input", &batch.schema(), &watching).unwrap());
        let mut counting = crate::counting::Counting::new(&layout);
        counting.add(&batch);
        let pane = counting.take().unwrap().1;
        let outcomes = rule.outcomes(&pane.columns["amount"], None, 0);
        assert_eq!((outcomes[0].broken, outcomes[0].checked, outcomes[0].ok), (5, 1005, false));
    }

    #[test]
    fn a_rule_whose_breaches_are_not_known_is_left_out() {
        let mut numbers = Numbers::new(&[]);
        [1.0, 5.0].into_iter().for_each(|value| numbers.add(&[], value));
        let mut labels = Labels::new(["a"]);
        labels.add("b");
        let rule = |text: &str| -> RuleSpec { serde_json::from_str(text).unwrap() };
        assert_eq!(rule(r#"{"min": 2}"#).outcomes(&Sketch::Numbers(numbers), None, 0), []);
        assert_eq!(rule(r#"{"unseen": 0}"#).outcomes(&Sketch::Labels(labels), None, 0), []);
    }

    #[test]
    fn bounds_that_make_no_sense_are_named() {
        let rule = RuleSpec { min: Some(f64::NAN), ..RuleSpec::default() };
        assert_eq!(rule.mistakes().len(), 1);
        let rule: RuleSpec =
            serde_json::from_str(r#"{"nulls": 2, "min": 3, "max": 1, "mean": [2, 1]}"#).unwrap();
        assert_eq!(rule.mistakes().len(), 3);
    }
}

//! How the replies of now differ from those that were logged.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array},
    compute::{cast, take, take_record_batch},
    datatypes::{DataType, Field, Float64Type, Schema},
};
use millstream_monitor::{
    Reference, ReferenceOptions,
    compare::{Criterion, compare},
    record::LogRows,
    report::Report,
};
use millstream_runtime::Reply;
use serde_json::{Value, json};

use super::{Failure, Recorded, ReplayArgs, as_type, column, print, split, time};

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) requests: u64,
    pub(super) equal: u64,
    /// Requests whose replies have other rows, columns or values.
    different: u64,
    /// Requests that failed then or now, but not both.
    pub(super) outcome_changed: u64,
    /// Requests that are not whole in the log.
    pub(super) partial: u64,
    /// Requests of which nobody can say whether they are answered as they were.
    pub(super) not_comparable: u64,
    /// Rows of requests that were answered then and are not now.
    rows_gone: u64,
    /// Rows of requests that are answered now and were not then.
    rows_new: u64,
    columns: Columns,
    differences: BTreeMap<String, Differences>,
    seconds: (Vec<f64>, Vec<f64>),
    replies: (Vec<RecordBatch>, Vec<RecordBatch>),
    /// Rows of both replies that are kept.
    kept: usize,
}

/// The columns of replies.
#[derive(Default)]
struct Columns {
    /// Those that are compared, by their place in the reply.
    compared: Vec<usize>,
    /// Those that were logged and are no more.
    gone: BTreeSet<String>,
    /// Those that were not logged, since they were not there.
    new: BTreeSet<String>,
    /// Those that were dropped from the log, or are there as digests only.
    unlogged: BTreeSet<String>,
}

#[derive(Debug, Default, PartialEq)]
struct Differences {
    rows: u64,
    /// How far numbers are apart at most, where both are numbers.
    most: Option<f64>,
}

/// As many rows of replies and times of requests are kept to say how they are distributed: the first ones.
const KEPT: usize = 1 << 20;

impl Found {
    /// Nothing yet, about replies of this schema.
    pub(super) fn new(log: &LogRows, reply: &Schema) -> Self {
        let (schema, dropped) = (log.schema(), log.dropped("reply"));
        let logged = schema.fields().iter().filter_map(|field| split(schema, field.name()));
        let logged = logged.filter(|(edge, column)| *edge == "reply" && *column != "seen");
        let logged: BTreeSet<&str> = logged.map(|(_, column)| column).collect();
        let mut columns = Columns::default();
        for (at, field) in reply.fields().iter().enumerate() {
            let name = field.name();
            if dropped.contains(name) || log.is_hashed(&logged_name(name)) {
                columns.unlogged.insert(name.clone());
            } else if logged.contains(name.as_str()) {
                columns.compared.push(at);
            } else {
                columns.new.insert(name.clone());
            }
        }
        let gone = logged.iter().filter(|name| reply.index_of(name).is_err());
        columns.gone = gone.map(|name| (*name).to_owned()).collect();
        Self { columns, ..Self::default() }
    }

    /// How long a request took then and now, in seconds.
    pub(super) fn took(&mut self, then: f64, now: f64) {
        if self.seconds.0.len() < KEPT {
            self.seconds.0.push(then);
            self.seconds.1.push(now);
        }
    }

    /// Holds a reply against the one that was logged, row by row and column by column, to the bit.
    pub(super) fn compare(&mut self, request: &Recorded, reply: &Reply) -> Result<(), Failure> {
        let rows = reply.rows();
        let seen = column(&request.rows, "reply__seen")?.as_boolean_opt();
        let seen = seen.ok_or("column `reply__seen` of the log is no boolean")?;
        // The request is whole in the log, so a row's place is its number there.
        let then =
            (0..seen.len()).filter(|row| seen.is_valid(*row) && seen.value(*row)).map(|row| row as u32);
        let then: Vec<u32> = then.collect();
        let now: Option<HashMap<u32, u32>> =
            (0..rows.num_rows()).map(|row| Some((reply.place(row)?, row as u32))).collect();
        let Some(now) = now else {
            // The graph mixes rows, so it cannot be told which answers which.
            self.not_comparable += 1;
            return Ok(());
        };
        let both: (Vec<u32>, Vec<u32>) =
            then.iter().filter_map(|place| Some((*place, *now.get(place)?))).unzip();
        let (gone, new) = (then.len() - both.0.len(), rows.num_rows() - both.0.len());
        self.rows_gone += gone as u64;
        self.rows_new += new as u64;
        let mut different = gone + new > 0 || (rows.num_rows() > 0 && !self.columns.new.is_empty());
        let (then, both) = (UInt32Array::from(then), (UInt32Array::from(both.0), UInt32Array::from(both.1)));
        for name in &self.columns.gone {
            // A log of several versions has columns that only the replies of some had.
            let was = take(column(&request.rows, &logged_name(name))?, &then, None)?;
            different |= was.null_count() < was.len();
        }
        let mut typed = Vec::with_capacity(self.columns.compared.len());
        for &at in &self.columns.compared {
            let (name, now) = (rows.schema_ref().field(at).name(), rows.column(at));
            let apart = match as_type(column(&request.rows, &logged_name(name))?, now.data_type()) {
                Ok(was) => {
                    let apart = differing(&take(&was, &both.0, None)?, &take(now, &both.1, None)?);
                    typed.push(was);
                    apart
                }
                // It was of a type whose values are none of this one.
                Err(_) => Differences { rows: both.0.len() as u64, most: None },
            };
            if apart.rows > 0 {
                different = true;
                self.differences.entry(name.clone()).or_default().add(&apart);
            }
        }
        *(if different { &mut self.different } else { &mut self.equal }) += 1;
        self.keep(typed, &then, rows)
    }

    /// Keeps both replies to compare how they are distributed, as long as there is room.
    fn keep(&mut self, then: Vec<ArrayRef>, places: &UInt32Array, now: &RecordBatch) -> Result<(), Failure> {
        let compared = &self.columns.compared;
        if self.kept >= KEPT || then.is_empty() || then.len() != compared.len() {
            return Ok(());
        }
        // What was null then need not be allowed to be now.
        let nullable = |at: &usize| Field::clone(now.schema_ref().field(*at)).with_nullable(true);
        let schema = Arc::new(Schema::new(compared.iter().map(nullable).collect::<Vec<_>>()));
        let then = take_record_batch(&RecordBatch::try_new(Arc::clone(&schema), then)?, places)?;
        let now = RecordBatch::try_new(schema, now.project(compared)?.columns().to_vec())?;
        self.kept += then.num_rows().max(now.num_rows());
        self.replies.0.push(then);
        self.replies.1.push(now);
        Ok(())
    }

    pub(super) fn show(self, args: &ReplayArgs, graph: &str) -> Result<(), Failure> {
        let drift = self.drift(graph)?;
        if let (Some(file), Some(report)) = (&args.html, &drift) {
            std::fs::write(file, report.to_html()).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        if args.json {
            print(&serde_json::to_string_pretty(&self.json(graph, drift.as_ref()))?)?;
        } else {
            print(&self.text(drift.as_ref()))?;
        }
        let same = args.other.is_none() && !args.features_now;
        match self.different + self.outcome_changed {
            0 => Ok(()),
            _ if !same => Ok(()),
            differing => Err(format!("{differing} requests are answered otherwise than they were").into()),
        }
    }

    fn json(&self, graph: &str, drift: Option<&Report>) -> Value {
        let latency = |times: &[f64]| json!({ "p50": quantile(times, 0.5), "p99": quantile(times, 0.99) });
        let told = |apart: &Differences| json!({ "rows": apart.rows, "most": apart.most });
        let columns: BTreeMap<&String, Value> =
            self.differences.iter().map(|(name, apart)| (name, told(apart))).collect();
        json!({
            "graph": graph,
            "requests": self.requests,
            "equal": self.equal,
            "different": self.different,
            "outcome_changed": self.outcome_changed,
            "partial": self.partial,
            "not_comparable": self.not_comparable,
            "rows_gone": self.rows_gone,
            "rows_new": self.rows_new,
            "columns": columns,
            "columns_gone": self.columns.gone,
            "columns_new": self.columns.new,
            "columns_not_compared": self.columns.unlogged,
            "seconds_then": latency(&self.seconds.0),
            "seconds_now": latency(&self.seconds.1),
            "drift": drift.map(Report::summary),
        })
    }

    fn text(&self, drift: Option<&Report>) -> String {
        let mut text = format!(
            "{} requests: {} equal to the bit, {} different, {} with another outcome, {} not whole in the log, {} not comparable",
            self.requests,
            self.equal,
            self.different,
            self.outcome_changed,
            self.partial,
            self.not_comparable
        );
        for (rows, what) in
            [(self.rows_gone, "were answered and are not"), (self.rows_new, "are answered and were not")]
        {
            if rows > 0 {
                text += &format!("\n  {rows} rows {what}");
            }
        }
        for (name, apart) in &self.differences {
            let most = apart.most.map(|most| format!(", by {most} at most")).unwrap_or_default();
            text += &format!("\n  {name}: {} rows differ{most}", apart.rows);
        }
        let Columns { gone, new, unlogged, .. } = &self.columns;
        let named = [
            (gone, "is not in the reply any more"),
            (new, "is new in the reply"),
            (unlogged, "is not compared: the log has no values of it"),
        ];
        for (names, what) in named {
            names.iter().for_each(|name| text += &format!("\n  {name}: {what}"));
        }
        if let Some(drift) = drift.filter(|_| self.different > 0) {
            text += &format!("\n  {}", drift.summary());
        }
        text
    }

    /// How the replies of now are distributed beside those of then; none where either has no rows.
    fn drift(&self, graph: &str) -> Result<Option<Report>, Failure> {
        let (then, now) = &self.replies;
        let is_empty = |replies: &[RecordBatch]| replies.iter().all(|reply| reply.num_rows() == 0);
        if is_empty(then) || is_empty(now) {
            return Ok(None);
        }
        let reference = Reference::of(then, &ReferenceOptions::default())?;
        let live = reference.count_rows(now)?;
        let edges = compare(&[("reply", &live, Some(&reference), Criterion::default())]);
        let report = Report {
            graph: graph.to_owned(),
            reference: Some("the replies that were logged".to_owned()),
            made: time::now(),
            requests: self.requests,
            edges,
            ..Report::default()
        };
        Ok(Some(report.counted()))
    }
}

impl Differences {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.most = self.most.into_iter().chain(other.most).reduce(f64::max);
    }
}

fn logged_name(column: &str) -> String {
    format!("reply__{column}")
}

/// How many rows of two columns differ, and by how much where they are numbers: not where one is null, NaN or infinite.
fn differing(then: &ArrayRef, now: &ArrayRef) -> Differences {
    let mut differences = Differences::default();
    if then.to_data() == now.to_data() {
        return differences;
    }
    let number =
        |array: &ArrayRef| cast(array, &DataType::Float64).ok().filter(|_| array.data_type().is_numeric());
    let numbers = number(then).zip(number(now));
    for row in 0..now.len() {
        if then.slice(row, 1).to_data() == now.slice(row, 1).to_data() {
            continue;
        }
        let apart =
            numbers.as_ref().filter(|_| then.is_valid(row) && now.is_valid(row)).map(|(then, now)| {
                let value = |array: &ArrayRef| array.as_primitive::<Float64Type>().value(row);
                (value(then) - value(now)).abs()
            });
        differences.add(&Differences { rows: 1, most: apart.filter(|apart| apart.is_finite()) });
    }
    differences
}

fn quantile(times: &[f64], q: f64) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(((times.len() as f64 - 1.0) * q).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    #[test]
    fn values_differ_by_their_bits_and_by_how_much_only_where_both_are_numbers() {
        let (nan, infinite) = (Some(f64::NAN), Some(f64::INFINITY));
        let cases = [
            (Some(1.0), Some(1.0), 0, None),
            (Some(1.0), Some(-2.5), 1, Some(3.5)),
            (Some(0.0), Some(-0.0), 1, Some(0.0)),
            (None, None, 0, None),
            (None, Some(7.0), 1, None),
            (Some(7.0), None, 1, None),
            (nan, nan, 0, None),
            (nan, Some(7.0), 1, None),
            (infinite, Some(7.0), 1, None),
        ];
        for (then, now, rows, most) in cases {
            let column = |value| Arc::new(Float64Array::from(vec![Some(9.0), value])) as ArrayRef;
            assert_eq!(
                differing(&column(then), &column(now)),
                Differences { rows, most },
                "{then:?} {now:?}"
            );
        }
        let column = |value| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        assert_eq!(differing(&column("a"), &column("b")), Differences { rows: 1, most: None });
    }

    #[test]
    fn the_largest_difference_is_kept() {
        let mut all = Differences::default();
        for most in [None, Some(2.0), None, Some(1.0)] {
            all.add(&Differences { rows: 1, most });
        }
        assert_eq!(all, Differences { rows: 4, most: Some(2.0) });
    }
}

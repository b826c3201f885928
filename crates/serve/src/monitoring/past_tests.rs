//! What a graph carried a day before as what it is compared with: over hours, and over a restart.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
};
use millstream_monitor::report::{ColumnReport, Report};
use prometheus::Registry;

use super::{gauges::Gauges, served::Served};
use crate::Project;

const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = HOUR / 60;
/// Panes of an hour are kept for less time than the reference lies back.
const PROJECT: &str = "\
name: p
monitoring: { path: kept, keep: { fine: 1h, hours: 2h, days: 9d } }
graphs:
  pay:
    input: { amount: float64, country: string, at: timestamp }
    steps:
      all: { select: [amount, country, at] }
    respond: all
    monitor:
      input:
        reference: { past: 24h }
        rules: { at: { freshness: 10m } }
        schema: {}
";

/// Payments hour after hour.
struct Payments {
    served: Served,
    now: i64,
}

impl Payments {
    fn new(folder: &Path, now: i64) -> Self {
        Self { served: Served::load(folder, "pay", now), now }
    }

    /// Serves an hour of payments, whose amounts are larger by `shift` and the last of which was made so long before its end.
    async fn hour(&mut self, shift: f64, age: i64) -> Report {
        self.now += HOUR;
        let schema = Arc::clone(self.served.engine.plan().input_schema());
        let amounts = (0..500).map(|i| f64::from(i * 37 % 500) + shift);
        let countries = (0..500).map(|i| if i % 9 == 0 { "it" } else { "de" });
        let times = (0..500).map(|i| self.now - age - i * MINUTE / 10);
        let times = Int64Array::from_iter_values(times);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from_iter_values(amounts)),
            Arc::new(StringArray::from_iter_values(countries)),
            cast(&times, schema.field(2).data_type()).unwrap(),
        ];
        self.served.engine.run(RecordBatch::try_new(schema, columns).unwrap()).await.unwrap();
        self.served.turn(self.now).reports.remove("pay").unwrap()
    }
}

fn column<'r>(report: &'r Report, name: &str) -> &'r ColumnReport {
    report.edges[0].columns.iter().find(|column| column.column == name).unwrap()
}

fn drifted(report: &Report) -> [Option<bool>; 2] {
    ["amount", "country"].map(|name| column(report, name).drifted)
}

#[tokio::test]
async fn an_hour_is_compared_with_that_of_the_day_before_as_soon_as_there_is_one_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("millstream.yaml"), PROJECT).unwrap();
    let mut payments = Payments::new(folder.path(), 0);
    for _ in 0..24 {
        let report = payments.hour(0.0, MINUTE).await;
        assert_eq!((drifted(&report), report.reference.as_deref()), ([None; 2], None));
        let note = column(&report, "amount").note.as_deref().unwrap();
        assert!(note.starts_with("0 rows are kept of "), "{note}");
        assert!(report.edges[0].quality.is_empty());
    }
    let report = payments.hour(0.0, MINUTE).await;
    assert_eq!(drifted(&report), [Some(false); 2]);
    assert_eq!(report.reference.as_deref(), Some("1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z"));
    let report = payments.hour(300.0, 11 * MINUTE).await;
    assert_eq!(drifted(&report), [Some(true), Some(false)]);
    let fresh = &column(&report, "at").quality[0];
    assert_eq!((fresh.ok, fresh.broken, fresh.checked), (false, 500, 500));
    let schema: Vec<(u64, bool)> =
        report.edges[0].quality.iter().map(|rule| (rule.checked, rule.ok)).collect();
    assert_eq!(schema, [(3, true)]);

    let registry = Registry::new();
    let reports = BTreeMap::from([("pay".to_owned(), report)]);
    Gauges::new(&registry).unwrap().show(&reports, &BTreeMap::new());
    let shown = registry.gather();
    let family = shown.iter().find(|family| family.name() == "millstream_monitor_broken_rules").unwrap();
    assert_eq!(family.get_metric().len(), 2);

    let Payments { mut served, now } = payments;
    served.keeper.end(served.project.watches(), now);
    drop(served);
    let report = Payments::new(folder.path(), now).hour(0.0, 9 * MINUTE).await;
    assert_eq!(drifted(&report), [Some(false); 2]);
    assert!(column(&report, "at").quality[0].ok);
}

#[test]
fn what_cannot_be_asked_of_the_past_is_refused() {
    let cases = [
        ("reference: { past: 24h }", "reference: { past: 24m }", "`past` is from 1h to 35d"),
        ("reference: { past: 24h }", "columns: [amount]", "`schema` is that of the `reference`"),
        (
            "{ at: { freshness: 10m } }",
            "{ country: { freshness: 10m } }",
            "`country` has no times for `freshness`",
        ),
        ("reference: { past: 24h }", "reference: { model: lgbm }", "no model `lgbm`; there is none"),
    ];
    for (from, to, expected) in cases {
        assert!(PROJECT.contains(from), "{from}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("millstream.yaml"), PROJECT.replace(from, to)).unwrap();
        let error = Project::load(folder.path()).err().unwrap().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

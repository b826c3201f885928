//! Requests that show what an alert is about: rows of the request log whose values lie where a column has moved to.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use millstream_monitor::{
    alert::{Event, Notification, Status},
    compare::bin_borders,
    record::{Example, Values},
};
use serde_json::{Value, json};

use super::kept::Kept;
use crate::project::chain;

/// Examples of one column, and columns that are looked for after one pane: files are read meanwhile.
const EXAMPLES: usize = 5;
const COLUMNS: usize = 20;
/// The metrics whose evidence says where a column has moved to.
const METRICS: [&str; 2] = ["drift", "drifted"];

/// Adds examples from `times` to the evidence of what fires. There are none where the graph has no request log, or its log not the
/// values of the column.
pub(super) fn show(
    notifications: &mut [Notification],
    graphs: &mut BTreeMap<String, Kept>,
    times: &Range<i64>,
) {
    // An alert with several channels tells each of them of the same columns.
    let mut found: BTreeMap<[String; 3], Option<Value>> = BTreeMap::new();
    for notification in notifications {
        if !METRICS.contains(&notification.alert.metric()) {
            continue;
        }
        for event in notification.events.iter_mut().filter(|event| event.status == Status::Firing) {
            let Some(place) = place(event) else { continue };
            if !found.contains_key(&place) && found.len() == COLUMNS {
                continue;
            }
            let examples = found.entry(place).or_insert_with_key(|[graph, edge, column]| {
                examples(graphs.get_mut(graph)?, (edge, column), event.evidence()?, times)
            });
            if let Some(examples) = examples {
                add(event, examples);
            }
        }
    }
}

/// The graph, the edge and the column that an event is about.
fn place(event: &Event) -> Option<[String; 3]> {
    let label = |name: &str| event.labels.get(name).cloned();
    Some([label("graph")?, label("edge")?, label("column")?])
}

fn add(event: &mut Event, examples: &Value) {
    let Some(Value::Object(evidence)) = event.evidence() else { return };
    let mut evidence = evidence.clone();
    evidence.insert("examples".to_owned(), examples.clone());
    event.activation.evidence = Some(Arc::new(Value::Object(evidence)));
}

fn examples(
    kept: &mut Kept,
    (edge, column): (&str, &str),
    evidence: &Value,
    times: &Range<i64>,
) -> Option<Value> {
    let values = risen(evidence);
    if values.is_empty() {
        return None;
    }
    let (recorder, edge) = kept.logged(edge, times.end)?;
    let found = recorder.examples((edge.as_str(), column), times.clone(), &values, EXAMPLES);
    let found = found.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), %edge, column, "an alert is told without examples");
        Vec::new()
    });
    let told =
        |Example { request_id, row, value }| json!({ "request_id": request_id, "row": row, "value": value });
    (!found.is_empty()).then(|| found.into_iter().map(told).collect())
}

/// The values of which there are more than in the reference, those with the largest change first.
fn risen(evidence: &Value) -> Vec<Values> {
    let numeric = evidence["live"].get("numeric").is_some();
    let bins = evidence["shifted"].as_array().into_iter().flatten();
    let risen = bins.filter(|bin| bin["live"].as_f64() > bin["reference"].as_f64());
    let names = risen.filter_map(|bin| bin["bin"].as_str());
    let values = |name: &str| match numeric {
        true => bin_borders(name).map(|(from, to)| Values::Between(from, to)),
        false => Some(Values::Category(name.to_owned())),
    };
    names.filter_map(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_looked_for_where_there_is_more_than_before() {
        let check = |live: Value, bins: &[(&str, f64, f64)], want: &[Values]| {
            let bins = bins
                .iter()
                .map(|(bin, reference, live)| json!({ "bin": bin, "reference": reference, "live": live }));
            let evidence = json!({ "live": live, "shifted": bins.collect::<Value>() });
            assert_eq!(risen(&evidence), want);
        };
        let bins = [("90 and more", 0.1, 0.6), ("below 10", 0.1, 0.0), ("10 to 20.5", 0.1, 0.2)];
        let want = [Values::Between(90.0, f64::INFINITY), Values::Between(10.0, 20.5)];
        check(json!({ "numeric": {} }), &bins, &want);
        let category = |name: &str| Values::Category(name.to_owned());
        check(json!({ "categorical": {} }), &bins, &[category("90 and more"), category("10 to 20.5")]);
        check(json!({ "numeric": {} }), &[("somewhere", 0.0, 1.0)], &[]);
        assert!(risen(&Value::Null).is_empty());
    }
}

//! A report under the names of MLRun's histogram data drift application.

use chrono::DateTime;
use millstream_monitor::report::{ColumnReport, Report};
use serde_json::{Value, json};

/// MLRun's thresholds: suspected, and detected.
const SUSPECTED: f64 = 0.5;
const DETECTED: f64 = 0.7;

/// The results of one endpoint, which is a graph. Distances are those of the bins that the graph's `monitor` has: with `profile: mlrun`
/// they are MLRun's own.
pub(super) fn exported(report: &Report) -> Value {
    let compared: Vec<(&str, &ColumnReport)> = report
        .edges
        .iter()
        .flat_map(|edge| &edge.columns)
        .filter(|column| !column.measures.is_empty())
        .map(|column| (column.column.as_str(), column))
        .collect();
    let measured = |column: &ColumnReport, name: &str| {
        column.measures.iter().find(|measure| measure.name == name).map(|measure| measure.value)
    };
    let mean = |name: &str| {
        let values: Vec<f64> = compared.iter().filter_map(|(_, column)| measured(column, name)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let (hellinger, tvd, kld) = (mean("hellinger"), mean("tvd"), mean("kld"));
    let general = hellinger.zip(tvd).map(|(hellinger, tvd)| f64::midpoint(hellinger, tvd));
    let status = general.map(|value| match value {
        value if value >= DETECTED => 2,
        value if value >= SUSPECTED => 1,
        _ => 0,
    });
    let features: serde_json::Map<String, Value> = compared
        .iter()
        .filter_map(|(name, column)| {
            let value = f64::midpoint(measured(column, "hellinger")?, measured(column, "tvd")?);
            Some(((*name).to_owned(), json!(value)))
        })
        .collect();
    let time = |micros: i64| DateTime::from_timestamp_micros(micros).map(|time| time.to_rfc3339());
    let metric = |name: &str, value: Option<f64>| json!({ "metric_name": name, "metric_value": value });
    json!({
        "endpoint_name": report.graph,
        "project": report.project,
        "application_name": "histogram-data-drift",
        "start_infer_time": time(report.from),
        "end_infer_time": time(report.to),
        "results": [{
            "result_name": "general_drift",
            "result_value": general,
            "result_kind": 0,
            "result_status": status.unwrap_or(-1),
        }],
        "metrics": [metric("hellinger_mean", hellinger), metric("kld_mean", kld), metric("tvd_mean", tvd)],
        "features_drift_results": features,
    })
}

#[cfg(test)]
mod tests {
    use millstream_monitor::report::{EdgeReport, Measure};

    use super::*;

    #[test]
    fn drift_is_told_under_the_names_of_mlrun() {
        let column = |name: &str, hellinger, tvd| {
            let measure = |name: &str, value| Measure { name: name.to_owned(), value, ..Measure::default() };
            let measures = vec![measure("hellinger", hellinger), measure("tvd", tvd)];
            ColumnReport { column: name.to_owned(), measures, ..ColumnReport::default() }
        };
        let columns = vec![column("a", 0.9, 0.7), column("b", 0.5, 0.3), ColumnReport::default()];
        let edges = vec![EdgeReport { edge: "input".to_owned(), columns, ..EdgeReport::default() }];
        let told = exported(&Report { graph: "loan".to_owned(), edges, ..Report::default() });
        assert_eq!(told["results"][0]["result_status"], 1);
        assert!((told["results"][0]["result_value"].as_f64().unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(told["metrics"][1], json!({ "metric_name": "kld_mean", "metric_value": null }));
        assert_eq!(told["features_drift_results"].as_object().unwrap().len(), 2);
        assert_eq!(exported(&Report::default())["results"][0]["result_status"], -1);
    }
}

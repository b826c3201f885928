//! The report as JSON: what is written can be read again, and so can what other versions write.

use expect_test::expect;

use super::*;

#[test]
fn json_is_the_report() {
    let report = small();
    let json = report.to_json().unwrap();
    expect![[r#"
        {
          "project": "bank",
          "graph": "score",
          "version": "v1",
          "reference": "training set",
          "from": 0,
          "to": 3600000000,
          "made": 3600000000,
          "requests": 1200,
          "failed": 3,
          "lost": 0,
          "degraded": 0,
          "latency": [
            {
              "at": 0,
              "p50": 900.0,
              "p99": 4100.0,
              "requests": 1200,
              "failed": 3
            }
          ],
          "edges": [
            {
              "edge": "enrich -> model",
              "rows": 0,
              "columns": [
                {
                  "column": "region",
                  "kind": "categorical",
                  "rows": 1200,
                  "nulls": 0,
                  "nans": 0,
                  "infinities": 0,
                  "unseen": 0,
                  "distinct": null,
                  "mean": null,
                  "std": null,
                  "min": null,
                  "max": null,
                  "quantiles": [],
                  "reference": null,
                  "live": {
                    "categorical": {
                      "counts": [
                        [
                          "north",
                          600
                        ],
                        [
                          "south",
                          590
                        ]
                      ],
                      "other": 10
                    }
                  },
                  "measures": [],
                  "drifted": null,
                  "note": "no reference",
                  "series": [],
                  "quality": [],
                  "segments": [],
                  "shifted": []
                },
                {
                  "column": "income",
                  "kind": "numeric",
                  "rows": 1200,
                  "nulls": 12,
                  "nans": 1,
                  "infinities": 0,
                  "unseen": 0,
                  "distinct": 640,
                  "mean": 31250.5,
                  "std": null,
                  "min": null,
                  "max": null,
                  "quantiles": [
                    {
                      "at": 0.5,
                      "value": 30000.0
                    }
                  ],
                  "reference": {
                    "numeric": {
                      "edges": [
                        0.0,
                        20000.0,
                        40000.0
                      ],
                      "counts": [
                        700,
                        300
                      ],
                      "below": 0,
                      "above": 0
                    }
                  },
                  "live": {
                    "numeric": {
                      "edges": [
                        0.0,
                        20000.0,
                        40000.0
                      ],
                      "counts": [
                        400,
                        787
                      ],
                      "below": 0,
                      "above": 0
                    }
                  },
                  "measures": [
                    {
                      "name": "psi",
                      "value": 0.284,
                      "threshold": 0.1,
                      "p_value": null,
                      "drifted": true
                    }
                  ],
                  "drifted": true,
                  "note": null,
                  "series": [
                    {
                      "at": 0,
                      "value": 0.05
                    },
                    {
                      "at": 3600000000,
                      "value": 0.284
                    }
                  ],
                  "quality": [
                    {
                      "rule": "at most 5 % null",
                      "broken": 12,
                      "checked": 1200,
                      "ok": true
                    }
                  ],
                  "segments": [
                    {
                      "segment": "north",
                      "rows": 600,
                      "value": 0.3,
                      "drifted": true
                    }
                  ],
                  "shifted": [
                    {
                      "bin": "20,000 to 40,000",
                      "reference": 0.3,
                      "live": 0.663
                    }
                  ]
                }
              ],
              "quality": []
            }
          ],
          "performance": [
            {
              "name": "roc_auc",
              "segment": null,
              "realised": [
                {
                  "at": 0,
                  "value": 0.8
                }
              ],
              "estimated": [],
              "lower": 0.75,
              "upper": null
            }
          ],
          "alerts": [
            {
              "name": "drift",
              "severity": "high",
              "state": "firing",
              "summary": "psi of income is 0.284",
              "since": 1800000000,
              "activations": [
                {
                  "at": 1800000000,
                  "cleared": null,
                  "value": 0.284
                }
              ]
            }
          ],
          "drifted_columns": 1,
          "columns_total": 2
        }"#]]
    .assert_eq(&json);
    // NaN, which equals nothing, became `null`.
    let read: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(read.edges[0].columns[1].std, None);
    assert_eq!(read.to_json().unwrap(), json);
}

#[test]
fn numbers_that_are_not_finite_are_null_and_can_be_read_again() {
    let shape = Shape::Numeric { edges: vec![f64::NEG_INFINITY, 0.0], counts: vec![1], below: 0, above: 0 };
    let column = ColumnReport {
        live: shape,
        measures: vec![Measure { value: f64::INFINITY, ..Measure::default() }],
        ..ColumnReport::default()
    };
    let json = serde_json::to_string(&column).unwrap();
    assert!(json.contains(r#""edges":[null,0.0]"#) && json.contains(r#""value":null"#), "{json}");
    let read: ColumnReport = serde_json::from_str(&json).unwrap();
    assert!(read.measures[0].value.is_nan());
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
}

#[test]
fn fields_may_be_missing_and_unknown() {
    let read: Report = serde_json::from_str(r#"{"graph": "score", "of_a_later_version": 1}"#).unwrap();
    assert_eq!(read, Report { graph: "score".into(), ..Report::default() });
}

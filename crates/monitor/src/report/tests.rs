//! The page as a document: it is well-formed, says what the report says, and stays small.

use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use roxmltree::{Document, Node, ParsingOptions};
use sha2::{Digest, Sha256};

use super::{page, *};

const HOUR: i64 = 3_600_000_000;

fn small() -> Report {
    let income = ColumnReport {
        column: "income".into(),
        rows: 1_200,
        nulls: 12,
        nans: 1,
        distinct: Some(640),
        mean: Some(31_250.5),
        std: Some(f64::NAN),
        quantiles: vec![Quantile { at: 0.5, value: 30_000.0 }],
        reference: Some(Shape::Numeric {
            edges: vec![0.0, 20_000.0, 40_000.0],
            counts: vec![700, 300],
            below: 0,
            above: 0,
        }),
        live: Shape::Numeric {
            edges: vec![0.0, 20_000.0, 40_000.0],
            counts: vec![400, 787],
            below: 0,
            above: 0,
        },
        measures: vec![Measure {
            name: "psi".into(),
            value: 0.284,
            threshold: Some(0.1),
            p_value: None,
            drifted: true,
        }],
        drifted: Some(true),
        series: vec![Point { at: 0, value: 0.05 }, Point { at: HOUR, value: 0.284 }],
        quality: vec![RuleOutcome { rule: "at most 5 % null".into(), broken: 12, checked: 1_200, ok: true }],
        segments: vec![SegmentReport {
            segment: "north".into(),
            rows: 600,
            value: Some(0.3),
            drifted: Some(true),
        }],
        shifted: vec![ShiftedBin { bin: "20,000 to 40,000".into(), reference: 0.3, live: 0.663 }],
        ..ColumnReport::default()
    };
    let region = ColumnReport {
        column: "region".into(),
        kind: ColumnKind::Categorical,
        rows: 1_200,
        live: Shape::Categorical { counts: vec![("north".into(), 600), ("south".into(), 590)], other: 10 },
        note: Some("no reference".into()),
        ..ColumnReport::default()
    };
    Report {
        project: "bank".into(),
        graph: "score".into(),
        version: "v1".into(),
        reference: Some("training set".into()),
        to: HOUR,
        made: HOUR,
        requests: 1_200,
        failed: 3,
        latency: vec![LatencyPoint {
            at: 0,
            p50: Some(900.0),
            p99: Some(4_100.0),
            requests: 1_200,
            failed: 3,
        }],
        edges: vec![EdgeReport {
            edge: "enrich -> model".into(),
            columns: vec![region, income],
            ..EdgeReport::default()
        }],
        performance: vec![MetricSeries {
            name: "roc_auc".into(),
            realised: vec![Point { at: 0, value: 0.8 }],
            lower: Some(0.75),
            ..MetricSeries::default()
        }],
        alerts: vec![AlertReport {
            name: "drift".into(),
            severity: Severity::High,
            state: AlertState::Firing,
            summary: "psi of income is 0.284".into(),
            since: Some(HOUR / 2),
            activations: vec![Activation { at: HOUR / 2, cleared: None, value: Some(0.284) }],
        }],
        ..Report::default()
    }
    .counted()
}

fn wide(columns: usize) -> Report {
    let one = small().edges.remove(0).columns.remove(1);
    let name = |at| ColumnReport { column: format!("column_{at}"), ..one.clone() };
    let edge =
        EdgeReport { edge: "in".into(), columns: (0..columns).map(name).collect(), ..EdgeReport::default() };
    Report { edges: vec![edge], ..small() }.counted()
}

/// Parses the page as XML.
fn parsed<T>(html: &str, read: impl FnOnce(&Document<'_>) -> T) -> T {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(html, options).unwrap_or_else(|error| panic!("{error}\n{html}"));
    read(&document)
}

fn named<'a>(document: &'a Document<'_>, tag: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    document.descendants().filter(move |node| node.has_tag_name(("http://www.w3.org/1999/xhtml", tag)))
}

/// All text of a node, without what is within its `<title>`s.
fn text(node: Node<'_, '_>) -> String {
    let parts = node.descendants().filter(|node| node.is_text());
    parts.filter_map(|node| node.text()).collect::<Vec<_>>().concat()
}

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
fn rules_of_an_edge_and_times_of_a_column_are_shown_and_what_is_broken_is_counted() {
    let rule = |ok: bool| RuleOutcome { rule: "schema: `<age>` is new".into(), broken: 1, checked: 3, ok };
    let made = ColumnReport {
        column: "made_at".into(),
        kind: ColumnKind::Time,
        min: Some(0.0),
        max: Some(90_000_000.0),
        ..ColumnReport::default()
    };
    let page = |quality: Vec<RuleOutcome>, edges: usize| {
        let edge = EdgeReport { edge: "in<put>".into(), columns: vec![made.clone()], quality };
        parsed(&Report { edges: vec![edge; edges], ..Report::default() }.to_html(), |document| {
            document.descendants().filter_map(|node| node.text()).collect::<Vec<_>>().join("|")
        })
    };
    let cases = [
        (
            vec![rule(false), rule(true)],
            1,
            vec!["Data quality of in<put>", "schema: `<age>` is new", "1 rule on data quality is broken."],
        ),
        (
            vec![rule(false)],
            60,
            vec!["60 rules on data quality are broken.", "Rules of 10 edges more are not shown."],
        ),
        (vec![], 1, vec!["latest|1970-01-01T00:01:30Z", "earliest|1970-01-01T00:00Z"]),
    ];
    for (quality, edges, expected) in cases {
        let text = page(quality, edges);
        for words in expected {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}

#[test]
fn fields_may_be_missing_and_unknown() {
    let read: Report = serde_json::from_str(r#"{"graph": "score", "of_a_later_version": 1}"#).unwrap();
    assert_eq!(read, Report { graph: "score".into(), ..Report::default() });
}

#[test]
fn the_summary_says_how_many_columns_drifted_and_which() {
    let drifted = |verdicts: &[Option<bool>]| {
        let column = |(at, drifted): (usize, &Option<bool>)| ColumnReport {
            column: format!("c{at}"),
            drifted: *drifted,
            measures: vec![Measure { value: at as f64, threshold: Some(1.0), ..Measure::default() }],
            ..ColumnReport::default()
        };
        let columns = verdicts.iter().enumerate().map(column).collect();
        Report { edges: vec![EdgeReport { columns, ..EdgeReport::default() }], ..Report::default() }.counted()
    };
    for (report, says) in [
        (drifted(&[]), "No columns were observed."),
        (drifted(&[None, None]), "No verdict on 2 columns."),
        (drifted(&[Some(false), None]), "None of 2 columns drifted."),
        (drifted(&[Some(true)]), "1 of 1 column drifted: c0."),
        (drifted(&[Some(true), Some(false), Some(true)]), "2 of 3 columns drifted: c2, c0."),
        (drifted(&[Some(true); 7]), "7 of 7 columns drifted: c6, c5, c4, c3, c2, and 2 more."),
        // Counts that cover more than is listed.
        (
            Report { drifted_columns: 40, columns_total: 900, ..Report::default() },
            "40 of 900 columns drifted.",
        ),
        (
            Report { drifted_columns: 40, columns_total: 900, ..drifted(&[Some(true)]) },
            "40 of 900 columns drifted: c0, and 39 more.",
        ),
    ] {
        assert_eq!(report.summary(), says);
        let html = report.to_html();
        let shown =
            parsed(&html, |page| named(page, "p").find(|p| p.attribute("class") == Some("says")).map(text));
        assert_eq!(shown.as_deref(), Some(says), "the page and the summary agree");
    }
}

#[test]
fn the_page_is_a_document_with_headings_captions_and_titles() {
    let html = small().to_html();
    parsed(&html, |page| {
        let headings: Vec<_> = ["h1", "h2", "h3"].iter().flat_map(|tag| named(page, tag)).map(text).collect();
        expect![[r#"
            [
                "bank / score",
                "Alerts",
                "Columns",
                "Performance of the model",
                "Latency and throughput",
                "Columns in detail",
                "How to read this",
                "drift",
                "roc_auc",
                "Latency",
                "Throughput",
                "income",
                "region",
            ]
        "#]]
        .assert_debug_eq(&headings);
        for table in named(page, "table") {
            let caption = table.first_element_child().unwrap();
            assert!(
                caption.has_tag_name(("http://www.w3.org/1999/xhtml", "caption"))
                    && !text(caption).is_empty()
            );
        }
        for picture in named(page, "svg").filter(|svg| svg.attribute("role") == Some("img")) {
            let title = picture.first_element_child().unwrap();
            assert!(title.tag_name().name() == "title" && !text(title).is_empty());
        }
        let hidden =
            |node: &Node<'_, '_>| node.ancestors().any(|node| node.attribute("aria-hidden") == Some("true"));
        let told = |node: &Node<'_, '_>| node.ancestors().any(|node| node.attribute("role") == Some("img"));
        assert!(
            named(page, "svg").all(|svg| hidden(&svg) || told(&svg)),
            "each picture is told or is decoration"
        );
        let ids: Vec<_> = page.descendants().filter_map(|node| node.attribute("id")).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "ids are not unique");
        for link in page.descendants().filter_map(|node| node.attribute("href")) {
            assert!(
                link.strip_prefix('#').is_some_and(|id| ids.contains(&id)),
                "{link} leads out of the page or nowhere"
            );
        }
    });
}

#[test]
fn a_column_says_all_that_is_known_of_it() {
    let html = small().to_html();
    parsed(&html, |page| {
        let cards: Vec<_> =
            named(page, "details").filter(|card| card.attribute("class") == Some("card column")).collect();
        let names: Vec<_> = cards
            .iter()
            .map(|card| {
                text(
                    card.descendants()
                        .find(|n| n.has_tag_name(("http://www.w3.org/1999/xhtml", "h3")))
                        .unwrap(),
                )
            })
            .collect();
        assert_eq!(names, ["income", "region"], "what drifted comes first");
        assert_eq!(cards[0].attribute("id"), Some("e0c1"), "anchors do not depend on the order");
        assert_eq!((cards[0].attribute("open"), cards[1].attribute("open")), (Some("open"), None));
        let (income, region) = (text(cards[0]), text(cards[1]));
        for words in [
            "psi",
            "0.284",
            "0.100",
            "drifted",
            "1,200",
            "12 (1 %)",
            "≈ 640",
            "31,250",
            "p50",
            "30,000",
            "20,000 to 40,000",
            "+36.3 pp",
            "north",
            "at most 5 % null",
            "kept",
            "0 to 20,000: live 33.7 %, reference 70 %",
        ] {
            assert!(income.contains(words), "{words}: {income}");
        }
        for words in ["no verdict", "no reference", "north", "50 %", "all others", "0.83 %"] {
            assert!(region.contains(words), "{words}: {region}");
        }
    });
}

#[test]
fn shares_are_drawn_not_counts() {
    let live = Shape::Numeric { edges: vec![0.0, 1.0, 2.0], counts: vec![1, 3], below: 0, above: 0 };
    let many =
        Shape::Numeric { edges: vec![0.0, 1.0, 2.0], counts: vec![1_000_000, 3_000_000], below: 0, above: 0 };
    // Bins twice as wide, half of whose values count for each half.
    let other = Shape::Numeric { edges: vec![0.0, 2.0], counts: vec![8], below: 0, above: 0 };
    check(
        &live,
        None,
        expect![[r#"
        0 to 1: live 25 %
        1 to 2: live 75 %"#]],
    );
    check(
        &live,
        Some(&many),
        expect![[r#"
        0 to 1: live 25 %, reference 25 %
        1 to 2: live 75 %, reference 75 %"#]],
    );
    check(
        &live,
        Some(&other),
        expect![[r#"
        0 to 1: live 25 %, reference 50 %
        1 to 2: live 75 %, reference 50 %
        The reference has other bins; its values are spread evenly over these."#]],
    );
    let beyond = Shape::Numeric { edges: vec![0.0, 1.0], counts: vec![2], below: 1, above: 1 };
    check(
        &beyond,
        None,
        expect![[r#"
        below 0: live 25 %
        0 to 1: live 50 %
        from 1 on: live 25 %
        ‹ and ›: values below and above the bins."#]],
    );
    let skewed = Shape::Numeric { edges: vec![0.0, 1.0, 10.0], counts: vec![1, 1], below: 0, above: 0 };
    check(
        &skewed,
        None,
        expect![[r#"
        0 to 1: live 50 %
        1 to 10: live 50 %
        Bins are drawn equally wide although they are not."#]],
    );
    let fine = Shape::Numeric {
        edges: (0..=120).map(f64::from).collect(),
        counts: vec![5; 120],
        below: 0,
        above: 0,
    };
    let html = drawn(&fine, None);
    assert_eq!(html.matches("<rect").count(), 60);
    assert!(html.contains("0 to 2: live 1.7 %") && html.contains("2 bins are joined in each bar."), "{html}");
}

/// Compares what the marks of a histogram say, and the remarks.
#[expect(clippy::needless_pass_by_value, reason = "as expectations are written")]
fn check(live: &Shape, reference: Option<&Shape>, expected: Expect) {
    let html = drawn(live, reference);
    let says = parsed(&format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{html}</div>"), |page| {
        let marks = named(page, "rect").map(text);
        let remarks = named(page, "p").map(text);
        marks.chain(remarks).collect::<Vec<_>>().join("\n")
    });
    expected.assert_eq(&says);
}

fn drawn(live: &Shape, reference: Option<&Shape>) -> String {
    let mut m = markup::Markup::default();
    histogram::draw(&mut m, "x", live, reference);
    m.finish()
}

#[test]
fn shapes_that_cannot_be_drawn_say_so() {
    let numeric = |edges: &[f64], counts: &[u64]| Shape::Numeric {
        edges: edges.to_vec(),
        counts: counts.to_vec(),
        below: 0,
        above: 0,
    };
    for shape in [
        Shape::default(),
        numeric(&[0.0, 1.0], &[0]),
        numeric(&[0.0, 1.0], &[1, 2]),
        numeric(&[1.0, 0.0], &[1]),
        numeric(&[f64::NEG_INFINITY, 0.0], &[1]),
        numeric(&[0.0], &[]),
        Shape::Categorical { counts: Vec::new(), other: 0 },
    ] {
        assert!(drawn(&shape, None).contains("No distribution"), "{shape:?}");
    }
    // The live side is drawn although the reference is of another kind.
    let live = numeric(&[0.0, 1.0], &[u64::MAX]);
    let reference =
        Shape::Categorical { counts: vec![("a".into(), u64::MAX), ("b".into(), u64::MAX)], other: 1 };
    assert!(drawn(&live, Some(&reference)).contains("0 to 1: live 100 %"));
    assert!(drawn(&reference, Some(&live)).contains("50 %"));
}

#[test]
fn markup_in_any_text_stays_text() {
    const ATTACK: &str = "\"'><img src=x onerror=alert(1)></script><script>alert(1)</script>\u{202e}";
    let elements = |html: &str| parsed(html, |page| page.descendants().filter(Node::is_element).count());
    let mut json = serde_json::to_value(small()).unwrap();
    let clean = serde_json::from_value::<Report>(json.clone()).unwrap().to_html();
    // All strings of the report, wherever they are.
    let mut replaced = 0;
    replace_strings(&mut json, ATTACK, &mut replaced);
    assert!(replaced > 12, "{replaced}");
    let attacked = serde_json::from_value::<Report>(json).unwrap().to_html();
    assert_eq!(attacked.matches("<script").count(), 1);
    assert_eq!(attacked.matches("<img").count(), 0);
    assert!(!attacked.contains('\u{202e}'));
    // Nothing but the breaks after the dots and underscores of names differs.
    let breaks = |html: &str| html.matches("<wbr/>").count();
    assert_eq!(elements(&attacked) - breaks(&attacked), elements(&clean) - breaks(&clean));
}

/// Replaces all strings but those of enums. Those of different names stay different.
fn replace_strings(value: &mut serde_json::Value, by: &str, replaced: &mut usize) {
    const ENUMS: [&str; 5] = ["numeric", "categorical", "high", "firing", "low"];
    match value {
        serde_json::Value::String(text) if !ENUMS.contains(&text.as_str()) => {
            *text = format!("{by}{replaced}");
            *replaced += 1;
        }
        serde_json::Value::Array(items) => {
            items.iter_mut().for_each(|item| replace_strings(item, by, replaced))
        }
        serde_json::Value::Object(fields) => {
            fields.iter_mut().for_each(|(_, field)| replace_strings(field, by, replaced));
        }
        _ => {}
    }
}

#[test]
fn the_policy_names_the_page_s_own_style_and_script() {
    for (directive, source) in [("style-src", page::STYLE), ("script-src", page::SCRIPT)] {
        let hash = BASE64_STANDARD.encode(Sha256::digest(source.as_bytes()));
        let wanted = format!("{directive} 'sha256-{hash}'");
        assert!(page::POLICY.contains(&wanted), "the text changed: page.rs has to say {wanted}");
    }
    let html = small().to_html();
    assert!(!html.contains(" style=\"") && !html.contains(" onclick"), "the policy forbids these");
    for outside in ["http://", "https://", "@import", "url(h", "src="] {
        let own = html.replace("xmlns=\"http://www.w3.org/1999/xhtml\"", "");
        assert!(!own.contains(outside), "{outside}");
    }
}

#[test]
fn a_large_report_stays_bounded_and_says_so() {
    let html = wide(5_000).to_html();
    assert!(html.len() < 6_000_000, "{}", html.len());
    parsed(&html, |page| {
        let cards =
            named(page, "details").filter(|card| card.attribute("class") == Some("card column")).count();
        assert_eq!(cards, 200);
        let main = named(page, "main").map(text).collect::<String>();
        assert!(main.contains("3,000 columns more are not listed here."));
        assert!(main.contains(
            "The first 200 columns by drift are shown in full; 4,800 more are in the table above only."
        ));
    });
    // Everything in one column, as long as can be.
    let mut long = small();
    let column = &mut long.edges[0].columns[1];
    column.column = "x".repeat(100_000);
    column.series = (0..100_000).map(|at| Point { at, value: at as f64 }).collect();
    column.segments = vec![column.segments[0].clone(); 10_000];
    column.shifted = vec![column.shifted[0].clone(); 10_000];
    column.quality = vec![column.quality[0].clone(); 10_000];
    column.measures = vec![column.measures[0].clone(); 10_000];
    column.quantiles = vec![column.quantiles[0]; 10_000];
    let fine = Shape::Categorical { counts: (0..50_000).map(|at| (at.to_string(), at)).collect(), other: 0 };
    (column.live, column.reference) = (fine.clone(), Some(fine));
    long.latency = (0..100_000)
        .map(|at| LatencyPoint { at, requests: 1, p99: Some(at as f64), ..Default::default() })
        .collect();
    long.alerts[0].activations = vec![long.alerts[0].activations[0]; 10_000];
    long.alerts = vec![long.alerts[0].clone(); 500];
    long.performance = vec![long.performance[0].clone(); 500];
    let html = long.to_html();
    assert!(html.len() < 3_000_000, "{}", html.len());
    for words in [
        "440 alerts more not shown.",
        "460 metrics more not shown.",
        "9,970 segments more not shown.",
        "The last 10 are listed.",
    ] {
        assert!(html.contains(words), "{words}");
    }
}

#[test]
fn a_thinned_line_keeps_its_least_and_its_largest_value() {
    let mut report = small();
    let series = &mut report.edges[0].columns[1].series;
    *series = (0..10_000).map(|at| Point { at: at * HOUR, value: 0.2 }).collect();
    series[7_777].value = 31.4;
    let html = report.to_html();
    // The axis reaches to 40, and a point of the line lies where 31.4 is: (1 - 31.4 / 40) * 110 pixels.
    assert!(html.contains(",23.65 "), "the peak is lost");
}

#[test]
fn detectors_and_columns_that_are_watched_together_are_told() {
    let detector = |name: &str, state: DetectorState, errors: u64| DetectorReport {
        edge: "scored".into(),
        detector: name.into(),
        state,
        errors,
        last_drift: (state == DetectorState::Drift).then_some(HOUR),
        ..DetectorReport::default()
    };
    let together = |edge: &str, drifted: Option<bool>| MultivariateReport {
        edge: edge.into(),
        columns: vec!["income".into(), "li<mit".into()],
        components: 1,
        explained: Some(0.98),
        rows: 350,
        error: drifted.map(|_| 0.5),
        lower: Some(0.1),
        upper: Some(0.2),
        drifted,
        series: drifted.map(|_| Point { at: 0, value: 0.5 }).into_iter().collect(),
        ..MultivariateReport::default()
    };
    let report = Report {
        detectors: vec![
            detector("ddm", DetectorState::Drift, 200),
            detector("eddm", DetectorState::Warning, 200),
            detector("adwin", DetectorState::Stable, 200),
            detector("adwin_2", DetectorState::Stable, 0),
        ],
        multivariate: vec![together("input", Some(true)), together("scored", None)],
        performance: Vec::new(),
        ..small()
    };
    parsed(&report.to_html(), |page| {
        let section = |id: &str| {
            let found = named(page, "section").find(|section| section.attribute("id") == Some(id));
            text(found.unwrap())
        };
        let (performance, together) = (section("performance"), section("together"));
        for words in ["ddm", "changed", "warns", "stable", "no labels yet", "1970-01-01", "never"] {
            assert!(performance.contains(words), "{words}: {performance}");
        }
        for words in ["drifted", "no verdict", "li<mit", "98", "expected: 0.100 to 0.200", "No rows yet."] {
            assert!(together.contains(words), "{words}: {together}");
        }
    });
    let read: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!((read.detectors, read.multivariate), (report.detectors, report.multivariate));
}

#[test]
fn an_empty_report_is_a_page_too() {
    let html = Report::default().to_html();
    parsed(&html, |page| {
        let main = named(page, "main").map(text).collect::<String>();
        assert!(
            main.contains("No columns were observed.")
                && main.contains("No edge of this graph was observed.")
        );
    });
    assert!(!html.contains("NaN "), "numbers that are not there are not shown as such");
}

#[test]
fn colours_can_be_told_apart_from_their_ground() {
    for dark in [false, true] {
        let on = |ink: &str, ground: &str| contrast(colour(ink, dark), colour(ground, dark));
        let texts = [
            ("ink", "ground"),
            ("quiet", "ground"),
            ("quiet", "card"),
            ("link", "card"),
            ("bad", "card"),
            ("good", "card"),
            ("bad", "bad-ground"),
            ("ink", "bad-ground"),
            ("warn", "warn-ground"),
            ("ink", "good-ground"),
            ("quiet", "faint"),
            ("link", "faint"),
        ];
        for (ink, ground) in texts {
            assert!(on(ink, ground) >= 4.5, "{ink} on {ground}, dark: {dark}: {}", on(ink, ground));
        }
        let marks = [
            ("bar", "card"),
            ("live", "card"),
            ("second", "card"),
            ("reference", "card"),
            ("reference", "bar"),
            ("live", "band"),
            ("second", "band"),
            ("edge", "card"),
            ("edge", "ground"),
        ];
        for (mark, ground) in marks {
            assert!(on(mark, ground) >= 2.95, "{mark} on {ground}, dark: {dark}: {}", on(mark, ground));
        }
    }
}

/// A colour of the style sheet: `--name: light-dark(#light, #dark);`.
fn colour(name: &str, dark: bool) -> [f64; 3] {
    let (_, rest) = page::STYLE.split_once(&format!("--{name}: light-dark(")).expect(name);
    let both: Vec<_> = rest.split(')').next().unwrap().split(", ").collect();
    let code = u32::from_str_radix(both[usize::from(dark)].trim_start_matches('#'), 16).unwrap();
    [16, 8, 0].map(|shift| f64::from(code >> shift & 0xff) / 255.0)
}

/// The ratio that WCAG 2 defines.
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let linear = colour.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

prop_compose! {
    fn any_shape()(
        edges in prop::collection::vec(any::<f64>(), 0..6),
        counts in prop::collection::vec(any::<u64>(), 0..6),
        names in prop::collection::vec((".{0,4}", any::<u64>()), 0..4),
        below in any::<u64>(),
        sorted in any::<bool>(),
        numeric in any::<bool>(),
    ) -> Shape {
        let mut edges = edges;
        if sorted {
            edges.retain(|edge| edge.is_finite());
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            let counts = vec![below; edges.len().saturating_sub(1)];
            return Shape::Numeric { edges, counts, below, above: below };
        }
        match numeric {
            true => Shape::Numeric { edges, counts, below, above: below },
            false => Shape::Categorical { counts: names, other: below },
        }
    }
}

prop_compose! {
    fn any_column()(
        column in ".{0,12}",
        counts in any::<[u64; 5]>(),
        values in prop::array::uniform6(prop::num::f64::ANY),
        live in any_shape(),
        reference in prop::option::of(any_shape()),
        drifted in any::<Option<bool>>(),
        series in prop::collection::vec((any::<i64>(), prop::num::f64::ANY), 0..6),
        threshold in prop::option::of(prop::num::f64::ANY),
    ) -> ColumnReport {
        let [rows, nulls, nans, infinities, unseen] = counts;
        ColumnReport {
            rows, nulls, nans, infinities, unseen, live, reference, drifted,
            mean: Some(values[0]),
            min: Some(values[1]),
            quantiles: vec![Quantile { at: values[2], value: values[3] }],
            measures: vec![Measure { name: column.clone(), value: values[4], threshold, p_value: threshold, drifted: true }],
            series: series.into_iter().map(|(at, value)| Point { at, value }).collect(),
            quality: vec![RuleOutcome { rule: column.clone(), broken: nulls, checked: rows, ok: false }],
            segments: vec![SegmentReport { segment: column.clone(), rows, value: threshold, drifted }],
            shifted: vec![ShiftedBin { bin: column.clone(), reference: values[4], live: values[5] }],
            column,
            ..ColumnReport::default()
        }
    }
}

prop_compose! {
    fn any_report()(
        columns in prop::collection::vec(any_column(), 0..4),
        name in ".{0,20}",
        times in any::<[i64; 4]>(),
        counts in any::<[u64; 4]>(),
        latency in prop::collection::vec((any::<i64>(), any::<Option<f64>>(), any::<u64>()), 0..6),
        limits in any::<(Option<f64>, Option<f64>)>(),
    ) -> Report {
        let [from, to, made, at] = times;
        let [requests, failed, lost, degraded] = counts;
        let series: Vec<_> = columns.iter().flat_map(|column| column.series.clone()).collect();
        let points = latency.into_iter().map(|(at, p99, n)| LatencyPoint { at, p50: p99, p99, requests: n, failed: n / 2 });
        Report {
            project: name.clone(), graph: name.clone(), from, to, made, requests, failed, lost, degraded,
            latency: points.collect(),
            performance: vec![MetricSeries { name: name.clone(), segment: Some(name.clone()), realised: series, lower: limits.0, upper: limits.1, estimated: Vec::new() }],
            alerts: vec![AlertReport { summary: name.clone(), since: Some(at), activations: vec![
                Activation { at, cleared: Some(made), value: limits.0 }, Activation { at: to, cleared: None, value: limits.1 },
            ], ..AlertReport::default() }],
            edges: vec![EdgeReport { edge: name, columns, ..EdgeReport::default() }],
            drifted_columns: lost,
            columns_total: degraded,
            ..Report::default()
        }
    }
}

proptest! {
    #[test]
    fn any_report_is_a_well_formed_page_and_readable_json(report in any_report()) {
        let html = report.to_html();
        parsed(&html, |page| {
            // Places and sizes of marks are numbers, and no size is negative.
            for node in page.descendants() {
                for name in ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points"] {
                    let value = node.attribute(name).unwrap_or("0");
                    let size = name == "width" || name == "height";
                    for number in value.split([' ', ',']) {
                        let number: f64 = number.trim_end_matches('%').parse().expect(value);
                        assert!(number.is_finite() && !(size && number < 0.0), "{name}={value}");
                    }
                }
            }
        });
        let json = report.to_json().unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read.to_json().unwrap(), json);
    }
}

//! What the page says, and how it is built.

use std::collections::HashSet;

use expect_test::expect;

use super::*;

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
        let elsewhere = [("a", "input"), ("b", "<more>"), ("c", "input")];
        let elsewhere = elsewhere.map(|(column, port)| (column.to_owned(), port.to_owned())).into();
        let columns = vec![made.clone()];
        let edge =
            EdgeReport { edge: "in<put>".into(), columns, elsewhere, quality, ..EdgeReport::default() };
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
        (
            vec![],
            1,
            vec![
                "in<put> hands on unchanged what is counted before: 1 column at <more>, 2 columns at input.",
            ],
        ),
    ];
    for (quality, edges, expected) in cases {
        let text = page(quality, edges);
        for words in expected {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
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

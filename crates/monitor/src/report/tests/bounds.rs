//! However large the report, the page is not.

use super::*;

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

fn wide(columns: usize) -> Report {
    let one = small().edges.remove(0).columns.remove(1);
    let name = |at| ColumnReport { column: format!("column_{at}"), ..one.clone() };
    let edge =
        EdgeReport { edge: "in".into(), columns: (0..columns).map(name).collect(), ..EdgeReport::default() };
    Report { edges: vec![edge], ..small() }.counted()
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

//! Any report at all is a page and can be read again.

use proptest::prelude::*;

use super::*;

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

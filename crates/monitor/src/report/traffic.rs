//! Latency and throughput over time.

use std::fmt::Display;

use super::{
    LatencyPoint, Point, Report,
    axis::{Axis, Time},
    chart::{Chart, Line, Percent, Pixel, frame, legend, time_axis, value_axis},
    format::{MINUTE, count, duration, latency, share, time},
    markup::Markup,
    parts,
};

/// Buckets that are drawn as bars; neighbours are joined until they fit.
const BARS: usize = 240;
const HEIGHT: u32 = 150;

pub(super) fn section(m: &mut Markup, report: &Report) {
    parts::section(m, "traffic", "Latency and throughput", |m| {
        let axis = Time::around(report.from, report.to, report.latency.iter().map(|point| point.at));
        m.tag("div", &[("class", &"card halves")], |m| {
            m.tag("div", &[], |m| latencies(m, axis, &report.latency));
            m.tag("div", &[], |m| throughput(m, axis, &report.latency));
        });
    });
}

fn latencies(m: &mut Markup, time: Time, points: &[LatencyPoint]) {
    let series = |of: fn(&LatencyPoint) -> Option<f64>| -> Vec<Point> {
        let point = |point: &LatencyPoint| Point { at: point.at, value: of(point).unwrap_or(f64::NAN) };
        points.iter().map(point).collect()
    };
    let (median, tail) = (series(|point| point.p50), series(|point| point.p99));
    let finite =
        |points: &[Point]| points.iter().map(|p| p.value).filter(|v| v.is_finite()).collect::<Vec<_>>();
    let last = |points: &[Point]| finite(points).last().map_or(f64::NAN, |last| *last);
    let highest = finite(&tail).into_iter().fold(f64::NAN, f64::max);
    m.leaf("h3", &[], "Latency");
    let entries: [(&'static str, &dyn Display); 2] = [
        ("live", &format_args!("p50, {} at the end", latency(last(&median)))),
        ("second", &format_args!("p99, {} at the end", latency(last(&tail)))),
    ];
    legend(m, &entries);
    let axis = Axis::from_zero(finite(&median).into_iter().chain(finite(&tail)));
    Chart {
        title: format!("Latency over time: p99 is {} at most", latency(highest)),
        time,
        names: axis.ticks.iter().map(|tick| latency(*tick)).collect(),
        axis,
        height: HEIGHT,
        lines: &[
            Line { name: "p99", class: "second", points: &tail },
            Line { name: "p50", class: "live", points: &median },
        ],
        expected: (None, None),
        shown: latency,
    }
    .draw(m);
}

fn throughput(m: &mut Markup, axis: Time, points: &[LatencyPoint]) {
    let by = points.len().div_ceil(BARS).max(1);
    let width = width(points, by);
    let buckets: Vec<(i64, u64, u64)> = points
        .chunks(by)
        .map(|bucket| {
            let sum = |of: fn(&LatencyPoint) -> u64| bucket.iter().map(of).fold(0, u64::saturating_add);
            (bucket[0].at, sum(|point| point.requests), sum(|point| point.failed))
        })
        .collect();
    // The window ends with its last bucket, not where that one starts.
    let time =
        Time { to: buckets.last().map_or(axis.to, |last| axis.to.max(last.0.saturating_add(width))), ..axis };
    let values = Axis::from_zero(buckets.iter().map(|bucket| bucket.1 as f64));
    let total = |of: fn(&(i64, u64, u64)) -> u64| buckets.iter().map(of).fold(0, u64::saturating_add);
    let (requests, failed) = (total(|bucket| bucket.1), total(|bucket| bucket.2));
    m.leaf("h3", &[], "Throughput");
    let every = duration(width);
    let entries: [(&'static str, &dyn Display); 2] = [
        ("bar", &format_args!("requests in buckets of {every}, {} in all", count(requests))),
        ("bar failed", &format_args!("failed, {} ({})", count(failed), share(failed, requests))),
    ];
    legend(m, &entries);
    frame(
        m,
        &format!("Requests in buckets of {every}: {} in all, {} failed", count(requests), count(failed)),
        HEIGHT,
        |m| {
            value_axis(m, &values, HEIGHT, &values.names());
            time_axis(m, time, HEIGHT);
            for bucket in &buckets {
                bars(m, time, &values, width, *bucket);
            }
        },
    );
}

fn bars(m: &mut Markup, time_axis: Time, values: &Axis, width: i64, (at, requests, failed): (i64, u64, u64)) {
    let height = f64::from(HEIGHT);
    let (start, end) = (time_axis.place(at), time_axis.place(at.saturating_add(width)));
    let (x, width) = (Percent(start), Percent((end - start) * 0.86));
    let mut bar = |class: &str, value: u64, least: f64, words: &dyn Display| {
        let size = (values.place(value as f64) * height).max(least);
        let (y, size) = (Pixel(height - size), Pixel(size));
        let place: [(&str, &dyn Display); 5] =
            [("class", &class), ("x", &x), ("y", &y), ("width", &width), ("height", &size)];
        m.tag("rect", &place, |m| m.leaf("title", &[], words));
    };
    let failures = if failed > 0 { format!(", {} failed", count(failed)) } else { String::new() };
    let words = format!("{}: {} requests{failures}", time(at), count(requests));
    bar("bar", requests, 0.0, &words);
    if failed > 0 {
        bar("bar failed", failed, 2.0, &words);
    }
}

/// The length of a drawn bucket: the least distance of two, times how many are joined.
fn width(points: &[LatencyPoint], by: usize) -> i64 {
    let steps = points.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at));
    let least = steps.filter(|step| *step > 0).min().unwrap_or(MINUTE);
    least.saturating_mul(i64::try_from(by).unwrap_or(i64::MAX))
}

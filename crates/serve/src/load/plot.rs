//! Latencies by percentile as an SVG: the further right, the rarer.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::shown;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 84.0;
const BOTTOM: f64 = 40.0;
const MARGIN: f64 = 20.0;
const COLORS: [&str; 2] = ["#2563eb", "#dc2626"];
/// One in ten, in a hundred, ... is as far right as that has digits.
const NINES: f64 = 5.0;

/// Both axes are logarithmic. Histograms without values are left out.
pub(super) fn by_percentile(lines: &[(&str, &Histogram<u64>)]) -> String {
    let lines: Vec<_> = lines.iter().filter(|(_, of)| !of.is_empty()).collect();
    let low = lines.iter().map(|(_, of)| of.min()).min().unwrap_or(1).max(1);
    let high = lines.iter().map(|(_, of)| of.max()).max().unwrap_or(10).max(low * 10);
    let (from, to) = ((low as f64).log10().floor(), (high as f64).log10().ceil());
    let x = |rarity: f64| LEFT + rarity / NINES * (WIDTH - LEFT - MARGIN);
    let y = |micros: f64| {
        HEIGHT - BOTTOM - (micros.max(1.0).log10() - from) / (to - from) * (HEIGHT - BOTTOM - MARGIN)
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\">\n<title>latency by percentile</title>\n<style>text{{font:12px ui-sans-serif,system-ui,sans-serif;\
         fill:#475569}}.grid{{stroke:#e2e8f0}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for decade in from as i32..=to as i32 {
        let (at, label) = (y(10f64.powi(decade)), shown(10u64.pow(decade.max(0) as u32)));
        line(&mut svg, LEFT, at, WIDTH - MARGIN, at);
        text(&mut svg, LEFT - 8.0, at + 4.0, "end", &label);
    }
    for (rarity, label) in [(0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")]
    {
        line(&mut svg, x(rarity), MARGIN, x(rarity), HEIGHT - BOTTOM);
        text(&mut svg, x(rarity), HEIGHT - BOTTOM + 18.0, "middle", label);
    }
    for (at, (name, of)) in lines.iter().enumerate() {
        let most = (of.len() as f64).log10().min(NINES);
        let mut points = String::new();
        for step in 0..=200 {
            let rarity = most * f64::from(step) / 200.0;
            let micros = of.value_at_quantile(1.0 - 10f64.powf(-rarity)) as f64;
            let _ = write!(points, "{:.1},{:.1} ", x(rarity), y(micros));
        }
        let color = COLORS[at % COLORS.len()];
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.trim_end()
        );
        let label = MARGIN + 16.0 * (at as f64 + 1.0);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{label:.1}\" style=\"fill:{color}\">{name}: {} answers</text>",
            LEFT + 10.0,
            of.len()
        );
    }
    svg + "</svg>\n"
}

fn line(svg: &mut String, x1: f64, y1: f64, x2: f64, y2: f64) {
    let _ =
        writeln!(svg, "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

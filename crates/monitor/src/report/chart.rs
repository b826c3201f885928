//! Lines over time as SVG that is as wide as its place: x is in percent, y in pixels.
//!
//! Lines need coordinates without units; they lie in an inner SVG that is stretched, whose strokes are not.

use std::fmt::{self, Display, Write};

use super::{
    Point,
    axis::{Axis, Time},
    format::time,
    markup::Markup,
};

/// Points of one line that are drawn. Of more, the least and the largest of each stretch are.
const POINTS: usize = 240;
/// The same for a line in a table.
const SPARK: usize = 48;
/// Up to here, each point is marked and says its value.
const MARKED: usize = 48;
/// The width of the inner SVG in its own units.
pub(super) const WIDE: f64 = 1000.0;

/// One line of a chart. Lines differ by colour and by dash: the class says both.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) class: &'static str,
    pub(super) points: &'a [Point],
}

pub(super) struct Chart<'a> {
    /// What the chart says, in a sentence, for those who cannot see it.
    pub(super) title: String,
    pub(super) time: Time,
    pub(super) axis: Axis,
    pub(super) height: u32,
    pub(super) lines: &'a [Line<'a>],
    /// The range that values are expected in.
    pub(super) expected: (Option<f64>, Option<f64>),
    /// How values are shown.
    pub(super) shown: fn(f64) -> String,
    /// The names of the ticks of `axis`.
    pub(super) names: Vec<String>,
}

impl Chart<'_> {
    pub(super) fn draw(&self, m: &mut Markup) {
        frame(m, &self.title, self.height, |m| {
            self.draw_expected(m);
            value_axis(m, &self.axis, self.height, &self.names);
            time_axis(m, self.time, self.height);
            for line in self.lines {
                let points = thinned(line.points, POINTS);
                stretched(m, self.height, |m| {
                    for run in runs(&points) {
                        let places = run.iter().map(|point| self.place(point));
                        polyline(m, line.class, places.map(|(x, y)| (x * WIDE, y)));
                    }
                });
                let few = points.len() <= MARKED;
                // A point between two gaps has no line to show it.
                for run in runs(&points).filter(|run| few || run.len() == 1) {
                    run.iter().for_each(|point| self.mark(m, line, point));
                }
            }
        });
    }

    fn mark(&self, m: &mut Markup, line: &Line<'_>, point: &Point) {
        let (x, y) = self.place(point);
        let (low, high) = self.expected;
        let outside = low.is_some_and(|low| point.value < low) || high.is_some_and(|high| point.value > high);
        let class = format_args!("dot {}{}", line.class, if outside { " outside" } else { "" });
        let (radius, x, y) = (if outside { 4.5 } else { 2.5 }, Percent(x), Pixel(y));
        m.tag("circle", &[("class", &class), ("cx", &x), ("cy", &y), ("r", &radius)], |m| {
            let place = if outside { ", outside the expected range" } else { "" };
            m.leaf(
                "title",
                &[],
                format_args!("{} {}: {}{place}", time(point.at), line.name, (self.shown)(point.value)),
            );
        });
    }

    /// The expected range as a band with lines at its ends.
    fn draw_expected(&self, m: &mut Markup) {
        let (low, high) = self.expected;
        if low.is_none() && high.is_none() {
            return;
        }
        let height = f64::from(self.height);
        let at = |value: f64| (1.0 - self.axis.place(value)) * height;
        let (top, bottom) = (high.map_or(0.0, at), low.map_or(height, at));
        let size = (bottom - top).max(0.0);
        m.void(
            "rect",
            &[("class", &"band"), ("y", &Pixel(top)), ("width", &"100%"), ("height", &Pixel(size))],
        );
        for y in [low, high].into_iter().flatten().map(at) {
            m.void("line", &[("class", &"limit"), ("x2", &"100%"), ("y1", &Pixel(y)), ("y2", &Pixel(y))]);
        }
    }

    fn place(&self, point: &Point) -> (f64, f64) {
        (self.time.place(point.at), (1.0 - self.axis.place(point.value)) * f64::from(self.height))
    }
}

/// An SVG as wide as its place. Names of axes lie outside of it, where the style sheet leaves room.
pub(super) fn frame(m: &mut Markup, title: &str, height: u32, inside: impl FnOnce(&mut Markup)) {
    m.tag("svg", &[("class", &"chart"), ("role", &"img"), ("width", &"100%"), ("height", &height)], |m| {
        m.leaf("title", &[], title);
        inside(m);
    });
}

/// An inner SVG whose x is 0 to [`WIDE`] and whose y is pixels.
pub(super) fn stretched(m: &mut Markup, height: u32, inside: impl FnOnce(&mut Markup)) {
    let view = format_args!("0 0 {WIDE} {height}");
    let attributes: [(&str, &dyn Display); 4] =
        [("viewBox", &view), ("preserveAspectRatio", &"none"), ("width", &"100%"), ("height", &height)];
    m.tag("svg", &attributes, inside);
}

pub(super) fn polyline(m: &mut Markup, class: &str, places: impl Iterator<Item = (f64, f64)>) {
    let points = places.fold(String::new(), |mut points, (x, y)| {
        let _ = write!(points, "{}{},{}", if points.is_empty() { "" } else { " " }, Pixel(x), Pixel(y));
        points
    });
    m.void("polyline", &[("class", &format_args!("line {class}")), ("points", &points)]);
}

pub(super) fn value_axis(m: &mut Markup, axis: &Axis, height: u32, names: &[String]) {
    for (tick, name) in axis.ticks.iter().zip(names) {
        let y = (1.0 - axis.place(*tick)) * f64::from(height);
        let class = if *tick == axis.low { "base" } else { "grid" };
        m.void("line", &[("class", &class), ("x2", &"100%"), ("y1", &Pixel(y)), ("y2", &Pixel(y))]);
        m.leaf("text", &[("class", &"y"), ("x", &-8), ("y", &Pixel(y + 4.0))], name);
    }
}

pub(super) fn time_axis(m: &mut Markup, time: Time, height: u32) {
    for (at, name) in time.ticks() {
        let x = Percent(time.place(at));
        m.void("line", &[("class", &"tick"), ("x1", &x), ("x2", &x), ("y1", &height), ("y2", &(height + 4))]);
        m.leaf("text", &[("class", &"x"), ("x", &x), ("y", &(height + 18))], name);
    }
}

/// A line the size of a word, for a table.
pub(super) fn spark(m: &mut Markup, title: &str, points: &[Point], threshold: Option<f64>) {
    const SIZE: (f64, f64) = (104.0, 24.0);
    let finite: Vec<_> = thinned(points, SPARK).into_iter().filter(|point| point.value.is_finite()).collect();
    let Some(last) = finite.last() else { return };
    let axis = Axis::from_zero(finite.iter().map(|point| point.value).chain(threshold));
    let time = Time::around(finite[0].at, last.at, []);
    let x = |at| 2.0 + time.place(at) * (SIZE.0 - 6.0);
    let y = |value| SIZE.1 - 3.0 - axis.place(value) * (SIZE.1 - 6.0);
    let view = format_args!("0 0 {} {}", SIZE.0, SIZE.1);
    let attributes: [(&str, &dyn Display); 5] =
        [("class", &"spark"), ("role", &"img"), ("viewBox", &view), ("width", &SIZE.0), ("height", &SIZE.1)];
    m.tag("svg", &attributes, |m| {
        m.leaf("title", &[], title);
        if let Some(at) = threshold.filter(|threshold| threshold.is_finite()).map(y) {
            m.void("line", &[("class", &"limit"), ("x2", &SIZE.0), ("y1", &Pixel(at)), ("y2", &Pixel(at))]);
        }
        polyline(m, "live", finite.iter().map(|point| (x(point.at), y(point.value))));
        let over = threshold.is_some_and(|threshold| last.value > threshold);
        let class = if over { "dot live outside" } else { "dot live" };
        m.void(
            "circle",
            &[("class", &class), ("cx", &Pixel(x(last.at))), ("cy", &Pixel(y(last.value))), ("r", &2.5)],
        );
    });
}

/// What each mark of a figure stands for: its class and its words.
pub(super) fn legend(m: &mut Markup, entries: &[(&'static str, &dyn Display)]) {
    m.tag("p", &[("class", &"legend")], |m| {
        for (class, words) in entries {
            m.tag("span", &[("class", &"entry")], |m| {
                let size: [(&str, &dyn Display); 4] =
                    [("class", &"swatch"), ("width", &22), ("height", &12), ("aria-hidden", &"true")];
                m.tag("svg", &size, |m| match *class {
                    "bar" | "bar failed" | "band" | "hollow" => {
                        m.void(
                            "rect",
                            &[("class", class), ("x", &1), ("y", &1), ("width", &20), ("height", &10)],
                        );
                    }
                    class => {
                        let class = format_args!("line {class}");
                        m.void("line", &[("class", &class), ("x2", &22), ("y1", &6), ("y2", &6)]);
                    }
                });
                m.text(words);
            });
        }
    });
}

/// At most so many points: the least and the largest of each stretch, in their order.
fn thinned(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretches = points.chunks(points.len().div_ceil(most / 2));
    let ends = stretches.flat_map(|stretch| {
        let by_value = |a: &&Point, b: &&Point| a.value.total_cmp(&b.value);
        let finite = || stretch.iter().filter(|point| point.value.is_finite());
        match (finite().min_by(by_value), finite().max_by(by_value)) {
            (Some(low), Some(high)) if low.at < high.at => vec![*low, *high],
            (Some(low), Some(high)) if low.at > high.at => vec![*high, *low],
            (Some(only), _) => vec![*only],
            _ => stretch.first().copied().into_iter().collect(),
        }
    });
    ends.collect()
}

/// The stretches between gaps.
fn runs(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    points.split(|point| !point.value.is_finite()).filter(|run| !run.is_empty())
}

/// A share as a length of SVG: `12.5%`.
pub(super) struct Percent(pub(super) f64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", Pixel(self.0 * 100.0))
    }
}

/// A length to a hundredth, without zeros that say nothing.
pub(super) struct Pixel(pub(super) f64);

impl Display for Pixel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = (self.0 * 100.0).round() / 100.0;
        write!(f, "{}", if rounded.is_finite() { rounded + 0.0 } else { 0.0 })
    }
}

//! The distribution of the live data over that of the reference.

use super::{
    Shape,
    axis::Axis,
    categories::Categories,
    chart::{Percent, Pixel, WIDE, frame, legend, polyline, stretched, value_axis},
    format::{percent, scale},
    markup::Markup,
};

/// Bars of one histogram; bins are joined until they fit.
const BARS: usize = 60;
const HEIGHT: u32 = 180;
/// Names below the bars.
const NAMES: usize = 5;

/// Draws the two shapes, or says why it cannot.
pub(super) fn draw(m: &mut Markup, column: &str, live: &Shape, reference: Option<&Shape>) {
    match live {
        Shape::Numeric { .. } => match Bins::of(live) {
            None => nothing(m),
            Some(live) => numeric(m, column, live, reference.and_then(Bins::of)),
        },
        Shape::Categorical { counts, other } => match Categories::of((counts, *other), reference) {
            None => nothing(m),
            Some(categories) => categories.draw(m),
        },
    }
}

fn nothing(m: &mut Markup) {
    m.leaf(
        "p",
        &[("class", &"empty")],
        "No distribution: nothing was counted, or the borders of the bins do not ascend.",
    );
}

/// Counts by bin, as floats: their sum cannot overflow.
#[derive(Clone)]
struct Bins {
    edges: Vec<f64>,
    counts: Vec<f64>,
    below: f64,
    above: f64,
}

impl Bins {
    /// `None` when the shape cannot be drawn.
    fn of(shape: &Shape) -> Option<Self> {
        let Shape::Numeric { edges, counts, below, above } = shape else { return None };
        let ascend =
            edges.windows(2).all(|pair| pair[0] < pair[1]) && edges.iter().all(|edge| edge.is_finite());
        let bins = Self {
            edges: edges.clone(),
            counts: counts.iter().map(|count| *count as f64).collect(),
            below: *below as f64,
            above: *above as f64,
        };
        (ascend && !counts.is_empty() && edges.len() == counts.len() + 1 && bins.total() > 0.0)
            .then_some(bins)
    }

    fn total(&self) -> f64 {
        self.counts.iter().sum::<f64>() + self.below + self.above
    }

    /// Shares of what is below if that is asked for, of the bins, and of what is above.
    fn shares(&self, (below, above): (bool, bool)) -> Vec<f64> {
        let slots = below.then_some(self.below).into_iter().chain(self.counts.iter().copied());
        slots.chain(above.then_some(self.above)).map(|count| count / self.total()).collect()
    }

    /// The same values in other bins, as if those of a bin lay evenly in it.
    fn spread(&self, edges: &[f64]) -> Self {
        let up_to = |border: f64| {
            let bins = self.edges.windows(2).zip(&self.counts);
            let part = bins.map(|(edge, count)| {
                let part = (border - edge[0]) / (edge[1] - edge[0]);
                count * if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
            });
            let beyond = self.edges.last().is_some_and(|last| border > *last);
            self.below + part.sum::<f64>() + if beyond { self.above } else { 0.0 }
        };
        let totals: Vec<_> = edges.iter().map(|edge| up_to(*edge)).collect();
        let (below, last) = (totals.first().copied().unwrap_or(0.0), totals.last().copied().unwrap_or(0.0));
        let counts = totals.windows(2).map(|pair| (pair[1] - pair[0]).max(0.0)).collect();
        Self { edges: edges.to_vec(), counts, below, above: (self.total() - last).max(0.0) }
    }

    /// Neighbours joined, `by` at a time.
    fn joined(&self, by: usize) -> Self {
        let last = self.edges.last().copied();
        let starts = self.edges[..self.counts.len()].iter().step_by(by).copied();
        Self {
            edges: starts.chain(last).collect(),
            counts: self.counts.chunks(by).map(|bins| bins.iter().sum()).collect(),
            ..*self
        }
    }
}

fn numeric(m: &mut Markup, column: &str, live: Bins, reference: Option<Bins>) {
    let mut notes = Vec::new();
    let mut reference = reference.map(|reference| match reference.edges == live.edges {
        true => reference,
        false => {
            notes.push("The reference has other bins; its values are spread evenly over these.".to_owned());
            reference.spread(&live.edges)
        }
    });
    let mut live = live;
    if live.counts.len() > BARS {
        let by = live.counts.len().div_ceil(BARS);
        notes.push(format!("{by} bins are joined in each bar."));
        (live, reference) = (live.joined(by), reference.map(|bins| bins.joined(by)));
    }
    let widths = live.edges.windows(2).map(|edge| edge[1] - edge[0]);
    let (least, most) = widths.fold((f64::MAX, 0.0f64), |(least, most), w| (least.min(w), most.max(w)));
    if most > least * 1.01 {
        notes.push("Bins are drawn equally wide although they are not.".to_owned());
    }
    let any = |of: fn(&Bins) -> f64| of(&live) + reference.as_ref().map_or(0.0, of) > 0.0;
    let beyond = (any(|bins| bins.below), any(|bins| bins.above));
    match beyond {
        (true, true) => notes.push("‹ and ›: values below and above the bins.".to_owned()),
        (true, false) => notes.push("‹: values below the bins.".to_owned()),
        (false, true) => notes.push("›: values above the bins.".to_owned()),
        (false, false) => {}
    }
    bars(m, column, &live, reference.as_ref(), beyond);
    for note in notes {
        m.leaf("p", &[("class", &"remark")], note);
    }
}

/// Draws a slot for each bin, and one for what lies `beyond` them on either side, if anything does.
fn bars(m: &mut Markup, column: &str, live: &Bins, reference: Option<&Bins>, beyond: (bool, bool)) {
    let names = names(&live.edges, beyond);
    let edges = scale(&live.edges);
    let (live, reference) = (live.shares(beyond), reference.map(|reference| reference.shares(beyond)));
    let axis = Axis::from_zero(live.iter().chain(reference.iter().flatten()).copied());
    let (height, slot) = (f64::from(HEIGHT), 1.0 / live.len() as f64);
    let first = usize::from(beyond.0);
    let bin = |at: usize| match at.checked_sub(first) {
        None => format!("below {}", edges[0]),
        Some(at) if at + 1 < edges.len() => format!("{} to {}", edges[at], edges[at + 1]),
        Some(_) => format!("from {} on", edges[edges.len() - 1]),
    };
    frame(m, &format!("Share of rows by bin of {column}"), HEIGHT, |m| {
        let ticks = scale(&axis.ticks.iter().map(|tick| tick * 100.0).collect::<Vec<_>>());
        let ticks: Vec<_> = ticks.iter().map(|tick| format!("{tick} %")).collect();
        value_axis(m, &axis, HEIGHT, &ticks);
        for (at, share) in live.iter().enumerate() {
            let size = axis.place(*share) * height;
            let bins = first..first + edges.len() - 1;
            let class = if bins.contains(&at) { "bar" } else { "bar beyond" };
            let (x, width) = (Percent((at as f64 + 0.06) * slot), Percent(slot * 0.88));
            let (y, size) = (Pixel(height - size), Pixel(size));
            let place: [(&str, &dyn std::fmt::Display); 5] =
                [("class", &class), ("x", &x), ("y", &y), ("width", &width), ("height", &size)];
            m.tag("rect", &place, |m| {
                let before = reference.as_ref().map(|shares| format!(", reference {}", percent(shares[at])));
                m.leaf(
                    "title",
                    &[],
                    format_args!("{}: live {}{}", bin(at), percent(*share), before.unwrap_or_default()),
                );
            });
        }
        if let Some(reference) = &reference {
            stretched(m, HEIGHT, |m| polyline(m, "reference", outline(reference, &axis)));
        }
        for (place, name) in names {
            m.leaf("text", &[("class", &"x"), ("x", &Percent(place)), ("y", &(HEIGHT + 18))], name);
        }
    });
}

/// The steps of a histogram as one line, from the base and back to it.
fn outline(shares: &[f64], axis: &Axis) -> impl Iterator<Item = (f64, f64)> {
    let (height, slot) = (f64::from(HEIGHT), WIDE / shares.len() as f64);
    let steps = shares.iter().enumerate().flat_map(move |(at, share)| {
        let y = (1.0 - axis.place(*share)) * height;
        [(at as f64 * slot, y), ((at + 1) as f64 * slot, y)]
    });
    [(0.0, height)].into_iter().chain(steps).chain([(WIDE, height)])
}

/// Some of the borders, at their places.
fn names(edges: &[f64], (below, above): (bool, bool)) -> Vec<(f64, String)> {
    let bins = edges.len() - 1;
    let slots = (bins + usize::from(below) + usize::from(above)) as f64;
    let place = |edge: usize| (edge + usize::from(below)) as f64 / slots;
    let step = bins.div_ceil(NAMES).max(1);
    let shown: Vec<_> = (0..=bins).step_by(step).collect();
    let words = scale(&shown.iter().map(|at| edges[*at]).collect::<Vec<_>>());
    let mut names: Vec<_> = shown.iter().map(|at| place(*at)).zip(words).collect();
    names.extend(below.then(|| (0.5 / slots, "‹".to_owned())));
    names.extend(above.then(|| (1.0 - 0.5 / slots, "›".to_owned())));
    names
}

/// What bars and outlines stand for.
pub(super) fn key(m: &mut Markup, known: bool) {
    let entries: [(&'static str, &dyn std::fmt::Display); 2] = [("bar", &"live"), ("hollow", &"reference")];
    legend(m, &entries[..if known { 2 } else { 1 }]);
}

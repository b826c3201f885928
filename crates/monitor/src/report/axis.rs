//! Where values and times lie on an axis, and which of them are named there.

use super::format::{DAY, HOUR, MINUTE, SECOND, clock, date, scale};

/// An axis of values with round ends.
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    /// Round values from `low` to `high`.
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    /// An axis that has all finite values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        match high - low {
            span if high < low || !span.is_finite() => Self::round(0.0, 1.0),
            // Less apart than their digits can show, or not at all: the axis is as wide as the values are large.
            span if span <= low.abs().max(high.abs()) * 1e-9 => {
                let around = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
                Self::round(if low == 0.0 { 0.0 } else { low - around }, high + around)
            }
            _ => Self::round(low, high),
        }
    }

    /// An axis that has zero too.
    pub(super) fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        Self::of(values.into_iter().chain([0.0]))
    }

    fn round(low: f64, high: f64) -> Self {
        let rough = (high - low) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|nice| nice * power).into_iter().find(|step| *step >= rough);
        let step = step.filter(|step| step.is_finite() && *step > 0.0).unwrap_or(high - low);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let steps = (last - first).clamp(1.0, 8.0) as u32;
        let ticks: Vec<_> = (0..=steps).map(|at| (first + f64::from(at)) * step).collect();
        let end = ticks.last().copied().unwrap_or(high);
        Self { low: first * step, high: end, ticks }
    }

    /// The names of the ticks: plain numbers.
    pub(super) fn names(&self) -> Vec<String> {
        scale(&self.ticks)
    }

    /// The place of a value, from 0 (low) to 1 (high).
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = (value - self.low) / (self.high - self.low);
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// An axis of time.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Time {
    /// The window, and whatever lies around it.
    pub(super) fn around(from: i64, to: i64, points: impl IntoIterator<Item = i64>) -> Self {
        let wide = |Self { from, to }: Self, at: i64| Self { from: from.min(at), to: to.max(at) };
        points.into_iter().fold(Self { from, to: to.max(from) }, wide)
    }

    /// The place of a time, from 0 to 1.
    pub(super) fn place(self, at: i64) -> f64 {
        let span = self.to as f64 - self.from as f64;
        if span > 0.0 { ((at as f64 - self.from as f64) / span).clamp(0.0, 1.0) } else { 0.5 }
    }

    /// Up to six round times with their names: days by date, hours by the clock.
    pub(super) fn ticks(self) -> Vec<(i64, String)> {
        const STEPS: [i64; 17] = [
            SECOND,
            10 * SECOND,
            MINUTE,
            5 * MINUTE,
            15 * MINUTE,
            30 * MINUTE,
            HOUR,
            2 * HOUR,
            3 * HOUR,
            6 * HOUR,
            12 * HOUR,
            DAY,
            2 * DAY,
            7 * DAY,
            30 * DAY,
            91 * DAY,
            365 * DAY,
        ];
        let span = i128::from(self.to) - i128::from(self.from);
        let fits = STEPS.into_iter().map(i128::from).find(|step| span / step <= 5);
        let step = fits.unwrap_or(span / 5).max(1);
        let first = i128::from(self.from).div_euclid(step) * step;
        let times = (0..8).map(|at| first + at * step).filter_map(|at| i64::try_from(at).ok());
        let inside = times.filter(|at| (self.from..=self.to).contains(at));
        inside.map(|at| (at, named(at, step, span))).collect()
    }
}

fn named(at: i64, step: i128, span: i128) -> String {
    let date = date(at);
    let (hour, minute, second) = clock(at);
    match step {
        _ if span > 400 * i128::from(DAY) => date,
        step if step >= i128::from(DAY) || (hour, minute, second) == (0, 0, 0) => {
            date.rsplit_once('-').map_or(date.clone(), |(rest, day)| {
                format!("{}-{day}", rest.rsplit('-').next().unwrap_or_default())
            })
        }
        step if step < i128::from(MINUTE) => format!("{hour:02}:{minute:02}:{second:02}"),
        _ => format!("{hour:02}:{minute:02}"),
    }
}

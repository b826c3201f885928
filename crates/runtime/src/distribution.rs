//! How long things take: counted in fixed buckets, without a lock, and read as percentiles or as a Prometheus histogram.
//!
//! What is counted only grows. The times of the last ten seconds are the difference between now and ten seconds ago.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::{
    Opts,
    core::{Desc, Describer, Metric, MetricVec, MetricVecBuilder},
    proto,
};

/// The bounds within a decade, as multiples of a hundredth of its start. Widths are 5 to 12 percent of the value, and the
/// bounds that people choose (1, 2.5, 5) are among them, so that buckets of Prometheus count exactly.
const IN_DECADE: usize = 32;
/// From 100 ns to 100 s.
const DECADES: usize = 9;
const BOUNDS_LEN: usize = IN_DECADE * DECADES + 1;
/// Upper bounds in nanoseconds, inclusive. One more bucket has what is longer.
static BOUNDS: [u64; BOUNDS_LEN] = bounds();

const fn bounds() -> [u64; BOUNDS_LEN] {
    let mut bounds = [0; BOUNDS_LEN];
    let (mut at, mut unit) = (0, 1);
    while at < IN_DECADE * DECADES {
        let mut mantissa = 100;
        while mantissa < 1000 {
            bounds[at] = mantissa * unit;
            at += 1;
            mantissa += match mantissa {
                0..200 => 10,
                200..500 => 25,
                _ => 50,
            };
        }
        unit *= 10;
    }
    bounds[at] = 100 * unit;
    bounds
}

/// Per number of binary digits, the first bucket that can hold a number of so many: a short way into the bounds.
static FIRST: [usize; 66] = first();

const fn first() -> [usize; 66] {
    let mut first = [BOUNDS_LEN; 66];
    let (mut digits, mut at) = (0, 0);
    while digits < 65 {
        // The least number of so many digits.
        let least = if digits == 0 { 0 } else { 1_u64 << (digits - 1) };
        while at < BOUNDS_LEN && bounds()[at] < least {
            at += 1;
        }
        first[digits] = at;
        digits += 1;
    }
    first
}

/// Where times are counted. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    labels: Vec<proto::LabelPair>,
    /// Seconds at which Prometheus buckets end.
    edges: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// Nanoseconds.
    sum: AtomicU64,
}

impl Recorder {
    #[inline]
    pub(crate) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 8);
        self.shared.counts[bucket(nanos)].fetch_add(1, Relaxed);
        self.shared.sum.fetch_add(nanos, Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> Distribution {
        Distribution {
            counts: self.shared.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.shared.sum.load(Relaxed),
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let digits = (u64::BITS - nanos.leading_zeros()) as usize;
    let (from, to) = (FIRST[digits], FIRST[digits + 1]);
    from + BOUNDS[from..to].partition_point(|bound| *bound < nanos)
}

impl Metric for Recorder {
    fn metric(&self) -> proto::Metric {
        let read = self.read();
        let mut histogram = proto::Histogram::default();
        let buckets = self.shared.edges.iter().map(|edge| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*edge);
            bucket.set_cumulative_count(read.up_to(*edge));
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(read.count());
        histogram.set_sample_sum(read.sum().as_secs_f64());
        let mut metric = proto::Metric::from_label(self.shared.labels.clone());
        metric.set_histogram(histogram);
        metric
    }
}

/// Recorders by label.
pub(crate) type Recorders = MetricVec<Edges>;

/// Recorders that end Prometheus buckets at `edges`, in seconds.
pub(crate) fn recorders(
    name: &str,
    help: &str,
    labels: &[&str],
    edges: &'static [f64],
) -> Result<Recorders, prometheus::Error> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let opts = Opts::new(name, help).variable_labels(labels);
    MetricVec::create(proto::MetricType::HISTOGRAM, Edges(edges), opts)
}

/// Where Prometheus buckets end, in seconds.
#[derive(Clone)]
pub(crate) struct Edges(&'static [f64]);

impl MetricVecBuilder for Edges {
    type M = Recorder;
    type P = Opts;

    fn build<V: AsRef<str>>(&self, opts: &Opts, values: &[V]) -> Result<Recorder, prometheus::Error> {
        let Desc { variable_labels, .. } = opts.describe()?;
        let mut labels: Vec<_> = variable_labels
            .into_iter()
            .zip(values)
            .map(|(name, value)| {
                let mut label = proto::LabelPair::default();
                label.set_name(name);
                label.set_value(value.as_ref().to_owned());
                label
            })
            .collect();
        labels.sort();
        let counts = (0..=BOUNDS.len()).map(|_| AtomicU64::new(0)).collect();
        Ok(Recorder { shared: Arc::new(Shared { labels, edges: self.0, counts, sum: AtomicU64::new(0) }) })
    }
}

/// How long something took, over all times that it was counted: from 100 ns to 100 s, within 12 percent.
#[derive(Clone, Debug)]
pub struct Distribution {
    counts: Box<[u64]>,
    /// Nanoseconds.
    sum: u64,
}

impl Distribution {
    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All times together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The time that a share of `q` (0.0 to 1.0) did not exceed; `None` when nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * q).ceil() as u64).clamp(1, count.max(1));
        let mut before = 0;
        for (at, here) in self.counts.iter().enumerate() {
            if before + here >= rank {
                let (low, high) = ends(at);
                let share = (rank - before) as f64 / *here as f64;
                return Some(Duration::from_nanos(low + ((high - low) as f64 * share) as u64));
            }
            before += here;
        }
        None
    }

    /// The longest time, rounded up to the end of its bucket.
    pub fn max(&self) -> Option<Duration> {
        let at = self.counts.iter().rposition(|count| *count > 0)?;
        Some(Duration::from_nanos(ends(at).1))
    }

    /// What was counted since `earlier` was read.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts);
        Self {
            counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// How many times were not longer, rounded up to the end of a bucket; 1, 2.5 and 5 in every decade are such ends.
    pub fn up_to(&self, seconds: f64) -> u64 {
        self.counts[..=bucket((seconds * 1e9).round() as u64)].iter().sum()
    }
}

/// Where a bucket begins and ends, in nanoseconds.
fn ends(bucket: usize) -> (u64, u64) {
    let low = bucket.checked_sub(1).map_or(0, |below| BOUNDS[below]);
    // What is longer than the last bound is said to be as long.
    (low, BOUNDS.get(bucket).copied().unwrap_or(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{RUN_EDGES, STEP_EDGES};

    fn recorded(times: impl IntoIterator<Item = Duration>) -> Recorder {
        let recorders = recorders("seconds", "Times", &["graph"], &STEP_EDGES).unwrap();
        let recorder = recorders.with_label_values(&["g"]);
        times.into_iter().for_each(|time| recorder.record(time));
        recorder
    }

    #[test]
    fn bounds_grow_and_have_every_edge_among_them() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b), "{BOUNDS:?}");
        assert_eq!((BOUNDS[0], BOUNDS[BOUNDS.len() - 1]), (100, 100_000_000_000));
        for edge in RUN_EDGES.iter().chain(&STEP_EDGES) {
            let nanos = (edge * 1e9).round() as u64;
            assert!(BOUNDS.binary_search(&nanos).is_ok(), "{edge} s");
        }
    }

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_ends_at_it_or_later() {
        let near = BOUNDS.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        let powers = (0..64).flat_map(|digit| [(1_u64 << digit) - 1, 1 << digit, (1 << digit) + 1]);
        for nanos in near.chain(powers).chain([0, u64::MAX]) {
            assert_eq!(bucket(nanos), BOUNDS.partition_point(|bound| *bound < nanos), "{nanos} ns");
        }
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_exact_ones() {
        let times: Vec<_> = (1..=10_000_u64).map(|at| Duration::from_nanos(at * at * 7 + 90)).collect();
        let read = recorded(times.iter().copied()).read();
        assert_eq!((read.count(), read.sum()), (10_000, times.iter().sum()));
        for q in [0.0, 0.001, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = times[((q * 10_000.0_f64).ceil() as usize).max(1) - 1].as_secs_f64();
            let found = read.quantile(q).unwrap().as_secs_f64();
            assert!((found / exact - 1.0).abs() < 0.12, "{q}: {found} instead of {exact}");
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_counts_as_the_last_one() {
        let read = recorded([Duration::from_secs(1000), Duration::MAX]).read();
        assert_eq!(read.quantile(0.5), Some(Duration::from_secs(100)));
        assert_eq!(read.max(), Some(Duration::from_secs(100)));
        let none = recorded([]).read();
        assert_eq!((none.quantile(0.5), none.max()), (None, None));
    }

    #[test]
    fn a_difference_has_only_what_came_since() {
        let recorder = recorded([Duration::from_secs(5); 3]);
        let earlier = recorder.read();
        recorder.record(Duration::from_millis(10));
        let since = recorder.read().since(&earlier);
        assert_eq!(
            (since.count(), since.sum(), since.max()),
            (1, Duration::from_millis(10), Some(Duration::from_millis(10)))
        );
    }

    #[test]
    fn an_edge_counts_what_is_as_long_and_not_what_is_longer() {
        let recorder = recorded([1_000, 1_001, 2_500, 6_000_000_000].map(Duration::from_nanos));
        let metric = recorder.metric();
        let buckets = metric.get_histogram().get_bucket();
        let counts: Vec<_> = buckets.iter().map(|bucket| bucket.cumulative_count()).collect();
        assert_eq!((counts[..3].to_vec(), counts.last()), (vec![1, 3, 3], Some(&3)));
        assert_eq!(metric.get_histogram().get_sample_count(), 4);
    }
}

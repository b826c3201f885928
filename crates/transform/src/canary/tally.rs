//! What is counted of both steps, and when that is enough to say that the new one is worse.

use std::time::Duration;

use super::Rollback;

/// Of so many standard deviations is what is known of a share sure. The numbers are looked at again after every call, so that a
/// usual 95 percent would be met by chance sooner or later; at three deviations it takes thousands of looks.
const DEVIATIONS: f64 = 3.0;
/// Fewer say nothing.
const LEAST: u64 = 20;
/// After so many rows of the new step what was counted is halved: what it does now counts more than what it did long ago.
const FORGET: u64 = 20_000;

/// How often something was so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) hits: u64,
    pub(super) of: u64,
}

impl Share {
    pub(super) fn count(&mut self, hits: usize, of: usize) {
        self.hits += hits as u64;
        self.of += of as u64;
    }

    fn halve(&mut self) {
        *self = Self { hits: self.hits / 2, of: self.of / 2 };
    }

    fn value(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hits as f64 / self.of as f64 }
    }

    /// The least that the true share is, as far as these are enough to say: the lower end of Wilson's interval.
    fn at_least(self) -> f64 {
        if self.of < LEAST {
            return 0.0;
        }
        let (n, p, z) = (self.of as f64, self.value(), DEVIATIONS);
        let middle = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        ((middle - half) / (1.0 + z * z / n)).max(0.0)
    }
}

/// What was counted of both steps.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rows that the new step failed.
    pub(super) failed: Share,
    /// Rows that the old one failed.
    pub(super) failed_before: Share,
    /// Calls that both answered, in which the new step took longer than allowed.
    slower: Share,
    /// Rows that both answered, in another way.
    pub(super) differing: Share,
}

impl Tally {
    /// Counts a call that both were given, with the time that each took.
    pub(super) fn timed(&mut self, new: Duration, old: Duration, rule: &Rollback) {
        if let Some(factor) = rule.latency {
            self.slower.count(usize::from(new.as_secs_f64() > old.as_secs_f64() * factor), 1);
        }
    }

    /// Why the new step is worse than it may be, if that is sure.
    pub(super) fn judge(&mut self, rule: &Rollback) -> Option<String> {
        let failed_before = self.failed_before.value();
        let errors = rule.errors.filter(|most| self.failed.at_least() > failed_before + most).map(|most| {
            format!(
                "it failed {} of {} rows, the other {:.2} %; at most {:.2} % more are allowed",
                self.failed.hits,
                self.failed.of,
                failed_before * 100.0,
                most * 100.0
            )
        });
        let latency = rule.latency.filter(|_| self.slower.at_least() > 0.5).map(|factor| {
            let Share { hits, of } = self.slower;
            format!("in {hits} of {of} calls it took more than {factor} times as long as the other")
        });
        let disagreement = rule.disagreement.filter(|most| self.differing.at_least() > *most).map(|most| {
            let Share { hits, of } = self.differing;
            format!(
                "it answered {hits} of {of} rows in another way; at most {:.2} % are allowed",
                most * 100.0
            )
        });
        let why = errors.or(latency).or(disagreement);
        if self.failed.of >= FORGET {
            for share in [&mut self.failed, &mut self.failed_before, &mut self.slower, &mut self.differing] {
                share.halve();
            }
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_at_least_what_wilson_s_interval_says_of_enough_rows() {
        // scipy.stats.binomtest(hits, of).proportion_ci(0.9973002039367398, "wilson").low
        for (hits, of, low) in
            [(0, 0, 0.0), (0, 100, 0.0), (19, 19, 0.0), (20, 100, 0.107_192_609), (500, 1000, 0.452_778_459)]
        {
            let got = Share { hits, of }.at_least();
            assert!((got - low).abs() < 1e-6, "{hits} of {of}: {got}");
        }
    }

    #[test]
    fn it_takes_enough_rows_to_be_sure_and_no_more() {
        let rule = Rollback { errors: Some(0.02), ..Rollback::default() };
        let judged = |bad: usize, good: usize| {
            let mut tally = Tally::default();
            tally.failed.count(bad, bad + good);
            tally.failed_before.count(10, 1000);
            tally.judge(&rule).is_some()
        };
        for (bad, good, worse) in [
            (0, 0, false),
            (19, 0, false),
            (20, 0, true),
            (1, 20, false),
            (3, 100, false),
            (8, 100, false),
            (30, 100, true),
            (30, 970, false),
        ] {
            assert_eq!(judged(bad, good), worse, "{bad} bad, {good} good");
        }
    }

    #[test]
    fn the_usual_call_decides_and_not_the_slowest() {
        let rule = Rollback { latency: Some(1.5), ..Rollback::default() };
        let judged = |times: &[(u64, usize)]| {
            let mut tally = Tally::default();
            for (micros, calls) in times {
                (0..*calls).for_each(|_| {
                    tally.timed(Duration::from_micros(*micros), Duration::from_micros(100), &rule)
                });
            }
            tally.judge(&rule)
        };
        assert_eq!(judged(&[(140, 1000), (1_000_000, 300)]), None);
        let told = "in 40 of 40 calls it took more than 1.5 times as long as the other";
        assert_eq!(judged(&[(151, 40)]).as_deref(), Some(told));
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let rule = Rollback { disagreement: Some(0.3), ..Rollback::default() };
        let mut tally = Tally::default();
        let mut until = None;
        for call in 0..2000 {
            tally.failed.count(0, 100);
            tally.differing.count(if call < 1000 { 0 } else { 100 }, 100);
            if tally.judge(&rule).is_some() {
                until = Some(call);
                break;
            }
        }
        assert!(until.is_some_and(|call| (1000..1100).contains(&call)), "{until:?}");
    }
}

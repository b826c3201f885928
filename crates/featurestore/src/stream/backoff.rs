//! How long is waited before something is tried again.

use std::time::Duration;

/// Waits that grow with each failure, drawn at random so that those who failed together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(20);

impl Backoff {
    /// The wait after one more failure: at least half of the bound that failures in a row have come to.
    pub(super) fn next(&mut self) -> Duration {
        let bound = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        bound.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        for bound in
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000].map(Duration::from_millis)
        {
            let wait = backoff.next();
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= SHORTEST);
    }
}

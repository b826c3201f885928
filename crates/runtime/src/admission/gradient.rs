//! How many runs may be under way, learned from how long they take.
//!
//! The gradient is the time that a run takes when nothing holds it up, by the time that it takes now. Where it is below one, runs
//! wait for each other, and the bound falls by as much; the square root of the bound is added each time, so that it rises where
//! there is room. Constants are Envoy's but for two points ([ADR 8](../../../../docs/adr/0008-adaptive-admission.md)): times
//! below a tolerated one are no reason to refuse anybody, because runs that share a batch take longer and cost less; and the
//! time without a hold-up is learned when the bound is low anyway, instead of by refusing nearly everybody once a minute.

use std::time::Duration;

/// The tolerated time, as a part of the deadline.
const OF_DEADLINE: u32 = 10;
const LEAST_TOLERATED: Duration = Duration::from_millis(5);
const MOST_TOLERATED: Duration = Duration::from_millis(100);
/// A run may take so much longer than without a hold-up, in percent.
const BUFFER: u32 = 25;
/// The bound falls by no more than this at once.
const LEAST_GRADIENT: f64 = 0.5;
/// The least bound, per core: fewer would leave cores idle while a reply is written.
const LEAST_PER_CORE: usize = 8;
/// Windows at the least bound after which what runs take is what they take without a hold-up.
const SETTLED: u32 = 5;

pub(super) struct Gradient {
    least: usize,
    most: usize,
    tolerated: Duration,
    /// What a run takes when nothing holds it up.
    unhindered: Option<Duration>,
    at_least: u32,
    stopped: bool,
}

impl Gradient {
    pub(super) fn new(most: usize, deadline: Option<Duration>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let tolerated = deadline.map_or(MOST_TOLERATED, |deadline| deadline / OF_DEADLINE);
        Self {
            least: (LEAST_PER_CORE * cores).min(most),
            most,
            tolerated: tolerated.clamp(LEAST_TOLERATED, MOST_TOLERATED),
            unhindered: None,
            at_least: 0,
            stopped: false,
        }
    }

    /// The bound stays what it is from now on.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// The next bound, when runs took `median` under this one.
    pub(super) fn next(&mut self, limit: usize, median: Duration) -> usize {
        if self.stopped {
            return limit;
        }
        self.unhindered = self.unhindered.map(|known| known.min(median));
        let wanted = self.unhindered.map_or(Duration::ZERO, |known| known * (100 + BUFFER) / 100);
        let wanted = wanted.max(self.tolerated);
        let gradient = match self.unhindered {
            // Whether they wait for each other shows when there are few.
            None if median > wanted => LEAST_GRADIENT,
            _ => (wanted.as_secs_f64() / median.as_secs_f64().max(1e-9)).clamp(LEAST_GRADIENT, 2.0),
        };
        let next = (limit as f64).mul_add(gradient, (limit as f64).sqrt()) as usize;
        let next = next.clamp(self.least, self.most);
        self.at_least = if gradient < 1.0 && next == self.least { self.at_least + 1 } else { 0 };
        if self.at_least >= SETTLED {
            self.at_least = 0;
            self.unhindered = Some(median);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with so many cores, on which a run alone takes `alone`; `load` runs per second come. Answers the bound, the time
    /// that runs take, and the runs per second that are answered, after some minutes.
    fn simulated(
        cores: f64,
        alone: Duration,
        load: f64,
        deadline: Option<Duration>,
    ) -> (usize, Duration, f64) {
        let (mut gradient, mut limit) = (Gradient::new(1024, deadline), 1024);
        let capacity = cores / alone.as_secs_f64();
        let mut took = alone;
        for _ in 0..3000 {
            // With less load than capacity nobody waits; with more, as many are under way as may be.
            let under_way = if load < capacity { load * alone.as_secs_f64() } else { limit as f64 };
            took = alone.mul_f64((under_way / cores).max(1.0));
            limit = gradient.next(limit, took);
        }
        (limit, took, load.min(capacity))
    }

    #[test]
    fn overload_is_held_to_short_waits_and_a_light_load_is_not_held_at_all() {
        let ms = Duration::from_millis;
        for (alone, load, deadline, bound, longest) in [
            (ms(10), 150.0, Some(ms(1000)), 1024..=1024, ms(10)),
            (ms(10), 600.0, Some(ms(1000)), 16..=40, ms(200)),
            (ms(10), 600.0, None, 16..=40, ms(200)),
            (ms(100), 60.0, Some(ms(3000)), 16..=60, ms(2000)),
            (Duration::from_micros(50), 120_000.0, Some(ms(1000)), 1024..=1024, ms(30)),
        ] {
            let (limit, took, _) = simulated(2.0, alone, load, deadline);
            assert!(bound.contains(&limit) && took <= longest, "{alone:?} {load}: {limit}, {took:?}");
        }
    }

    #[test]
    fn runs_that_have_become_dearer_are_not_refused_for_long() {
        let (mut gradient, mut limit) = (Gradient::new(1024, Some(Duration::from_secs(1))), 1024);
        (0..100).for_each(|_| limit = gradient.next(limit, Duration::from_millis(10)));
        assert_eq!(limit, 1024);
        // Nothing waits: they just take so long now.
        let limits: Vec<usize> = (0..600)
            .map(|_| {
                limit = gradient.next(limit, Duration::from_millis(300));
                limit
            })
            .collect();
        assert!(limits.iter().min() < Some(&64));
        assert_eq!(limits.last(), Some(&1024), "{:?}", &limits[..80]);
    }
}

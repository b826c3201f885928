//! Layers: steps around a step, for steps that wait for something outside. Each adds one promise and changes nothing else.

mod batch;
mod breaker;
mod hedge;
mod kinds;
mod limit;
mod retry;
mod timeout;
mod tokens;

use std::time::Duration;

use millstream_graph::Step;

pub use batch::Batcher;
pub use breaker::Breaker;
pub use hedge::Hedge;
pub use kinds::kinds;
pub use limit::Limit;
pub use retry::Retry;
pub use timeout::Timeout;

/// Puts layers around a step; the last one is outermost.
///
/// ```
/// use std::time::Duration;
/// use millstream_graph::Step;
/// use millstream_runtime::layers::Layers;
///
/// /// At most 64 calls at once; each attempt has 20 ms; one that fails is tried twice again; after five failures in a row no
/// /// call is made for five seconds.
/// fn guarded(fetch: impl Step) -> impl Step {
///     fetch.limit(64).timeout(Duration::from_millis(20)).retry(2).breaker()
/// }
/// ```
pub trait Layers: Step + Sized {
    /// Gives each call so much time to wait.
    fn timeout(self, limit: Duration) -> Timeout<Self> {
        Timeout::new(self, limit)
    }

    /// Calls again, up to `times` times, when something that the step depends on did not answer.
    fn retry(self, times: u32) -> Retry<Self> {
        Retry::new(self, times)
    }

    /// Lets at most `calls` calls in at once; further ones are refused, or wait: see [`Limit::queue`].
    fn limit(self, calls: usize) -> Limit<Self> {
        Limit::new(self, calls)
    }

    /// Calls a second time when an answer takes longer than `after`.
    fn hedge(self, after: Duration) -> Hedge<Self> {
        Hedge::new(self, after)
    }

    /// Puts the rows of several runs into one call of at most `rows` rows.
    fn batch(self, rows: usize) -> Batcher<Self> {
        Batcher::new(self, rows)
    }

    /// Stops calling for a while when calls keep failing.
    fn breaker(self) -> Breaker<Self> {
        Breaker::new(self)
    }
}

impl<S: Step> Layers for S {}

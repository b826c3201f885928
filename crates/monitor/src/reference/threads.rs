//! Work on several threads, whose outcome does not depend on how many they are.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread::{ScopedJoinHandle, scope},
};

/// Does the work of each place below `count`, a thread one place after the other, and answers in the order of places. Of what fails, the
/// first place is told: no place is begun after one has failed, but those before it have been.
pub(super) fn each<T: Send, E: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Relaxed);
            if place >= count {
                return done;
            }
            let outcome = work(place);
            if outcome.is_err() {
                next.store(count, Relaxed);
            }
            done.push((place, outcome));
        }
    };
    // This thread is one of them.
    let mut done = scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(run)).collect();
        let mut done = run();
        for other in others.into_iter().map(ScopedJoinHandle::join) {
            // A thread that panicked goes on panicking here.
            done.extend(other.unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_in_order_and_the_first_failure_is_told_on_any_number_of_threads() {
        for threads in [0, 1, 2, 7, 100] {
            let squares = each(50, threads, |place| Ok::<_, ()>(place * place));
            assert_eq!(squares, Ok((0..50).map(|place| place * place).collect()));
            let failed = each(50, threads, |place| if place % 20 == 13 { Err(place) } else { Ok(()) });
            assert_eq!(failed, Err(13));
            assert_eq!(each(0, threads, |_| Ok::<(), ()>(())), Ok(Vec::new()));
        }
    }
}

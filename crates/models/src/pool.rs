//! A fixed set of instances that runs take turns with.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

thread_local! {
    /// Where this thread looks first. Threads are numbered in the order in which they first ask for an instance of any model.
    static SEAT: usize = {
        static SEATS: AtomicUsize = AtomicUsize::new(0);
        SEATS.fetch_add(1, Ordering::Relaxed)
    };
}

/// Instances of which each serves one run at a time. A thread that comes again gets the instance it had before, whose memory is
/// still near, unless another thread has it. No thread waits for a lock as long as one instance is idle; otherwise it parks
/// until one comes back. None is ever made after the start, so memory is bounded.
pub(crate) struct Pool<T> {
    instances: Box<[Mutex<T>]>,
    parked: AtomicUsize,
    turn: Mutex<()>,
    back: Condvar,
}

impl<T> Pool<T> {
    /// A pool of these instances. It must have at least one, or every [`take`](Self::take) waits for ever.
    pub(crate) fn new(instances: Vec<T>) -> Self {
        let instances = instances.into_iter().map(Mutex::new).collect();
        Self { instances, parked: AtomicUsize::new(0), turn: Mutex::new(()), back: Condvar::new() }
    }

    /// An idle instance; it goes back when the guard is dropped, also by a panic.
    pub(crate) fn take(&self) -> Taken<'_, T> {
        let instance = self.idle().unwrap_or_else(|| self.wait());
        Taken { pool: self, instance: Some(instance) }
    }

    fn idle(&self) -> Option<MutexGuard<'_, T>> {
        let count = self.instances.len();
        let first = SEAT.with(|seat| seat % count.max(1));
        (first..first + count).find_map(|at| match self.instances[at % count].try_lock() {
            Ok(instance) => Some(instance),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `Taken::drop`: either we see the instance that comes back, or its giver sees us.
        fence(Ordering::SeqCst);
        let instance = loop {
            if let Some(instance) = self.idle() {
                break instance;
            }
            turn = self.back.wait(turn).unwrap_or_else(PoisonError::into_inner);
        };
        self.parked.fetch_sub(1, Ordering::SeqCst);
        instance
    }
}

/// An instance in use.
pub(crate) struct Taken<'p, T> {
    pool: &'p Pool<T>,
    instance: Option<MutexGuard<'p, T>>,
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.instance {
            Some(instance) => instance,
            None => unreachable!("the instance leaves only when the guard is dropped"),
        }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.instance {
            Some(instance) => instance,
            None => unreachable!("the instance leaves only when the guard is dropped"),
        }
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        self.instance = None;
        fence(Ordering::SeqCst);
        if self.pool.parked.load(Ordering::SeqCst) > 0 {
            // Whoever parks holds the lock from its last look until it waits, so this notification is not lost.
            drop(self.pool.turn.lock().unwrap_or_else(PoisonError::into_inner));
            self.pool.back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_taker_gets_a_turn_and_nothing_is_lost() {
        for instances in [1, 2, 5] {
            let pool = Pool::new(vec![0_usize; instances]);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..2_000 {
                            *pool.take() += 1;
                        }
                    });
                }
            });
            let taken: Vec<_> = (0..instances).map(|_| pool.take()).collect();
            assert_eq!(taken.iter().map(|instance| **instance).sum::<usize>(), 16_000);
        }
    }

    #[test]
    fn a_panic_gives_the_instance_back() {
        let pool = Pool::new(vec![()]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _taken = pool.take();
            panic!("in the middle of a run");
        }));
        assert!(panicked.is_err());
        drop(pool.take());
    }
}

//! What threads share: the standard library's, or in tests of interleavings (feature `shuttle`) a model checker's, which tries
//! many orders of what threads do. `Arc`s and Tokio's channels and semaphores are the same in both; to a model checker each
//! call of them is one step.

#[cfg(not(feature = "shuttle"))]
mod real {
    pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};

    /// A place where a test of interleavings may let another thread run.
    #[inline]
    pub(crate) fn point() {}

    /// Tasks that end when this is dropped.
    #[derive(Default)]
    pub(crate) struct Tasks(tokio::task::JoinSet<()>);

    impl Tasks {
        pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
            while self.0.try_join_next().is_some() {}
            self.0.spawn(task);
        }
    }
}

#[cfg(feature = "shuttle")]
mod real {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
    pub(crate) use std::sync::PoisonError;

    pub(crate) fn point() {
        shuttle::thread::yield_now();
    }

    #[derive(Default)]
    pub(crate) struct Tasks(Vec<shuttle::future::JoinHandle<()>>);

    impl Tasks {
        pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
            self.0.push(shuttle::future::spawn(task));
        }
    }

    impl Drop for Tasks {
        fn drop(&mut self) {
            self.0.iter().for_each(shuttle::future::JoinHandle::abort);
        }
    }
}

pub(crate) use real::*;

//! What happens to a connection beside its requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake},
};

use futures_util::task::AtomicWaker;

/// Wakes a connection's task for its timer and for the stage of its server, and remembers that it did. They are polled only then:
/// at each poll they would cost a request more than its routing.
pub(super) struct Aside {
    happened: AtomicBool,
    task: AtomicWaker,
}

impl Aside {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { happened: AtomicBool::new(true), task: AtomicWaker::new() })
    }

    /// There is something new to be polled.
    pub(super) fn look(&self) {
        self.happened.store(true, SeqCst);
    }

    /// Whether anything has happened since this was asked. If not, the task is woken when it does.
    pub(super) fn happened(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.happened.load(SeqCst) && self.happened.swap(false, SeqCst)
    }
}

impl Wake for Aside {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.look();
        self.task.wake();
    }
}

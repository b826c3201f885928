//! Waiting on a thread where no runtime is at hand.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// What `future` comes to; this thread waits for it. For answers that another thread gives, not for timers or sockets.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    // Inside a task, the budget that makes futures give way would never be filled up again.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::sync::oneshot;

    #[test]
    fn a_thread_waits_for_what_another_gives() {
        let (give, given) = oneshot::channel();
        thread::scope(|scope| {
            scope.spawn(|| give.send(7));
            assert_eq!(super::wait(given), Ok(7));
        });
    }
}

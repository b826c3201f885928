//! Waiting on a thread where no runtime is at hand.

/// What `future` comes to; this thread waits for it. For answers that another thread gives, not for timers or sockets.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    // Inside a task, the budget that makes futures give way would never be filled up again.
    pollster::block_on(tokio::task::unconstrained(future))
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

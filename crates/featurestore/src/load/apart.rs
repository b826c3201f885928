//! Waiting for what is asynchronous, from code that is not.

use std::{future::Future, io, thread};

/// Waits on a thread of its own, since the caller's may belong to a runtime. A panic is an error.
pub(super) fn apart<T: Send>(answer: impl Future<Output = io::Result<T>> + Send) -> io::Result<T> {
    let wait = || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer);
    let answer = thread::scope(|scope| scope.spawn(wait).join());
    answer.unwrap_or_else(|_| Err(io::Error::other("reading it panicked")))
}

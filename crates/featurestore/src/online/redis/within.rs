//! A runtime of its own for connections that are made and used where there is none.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime on a thread of its own, for sockets and timers. Dropped, it ends without waiting.
#[derive(Debug)]
pub(crate) struct Background(Option<Runtime>);

impl Background {
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("millstream-redis").enable_all().build()?;
        Ok(Arc::new(Self(Some(runtime))))
    }

    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // It may be dropped inside another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// A future whose sockets and timers are those of a runtime, whoever polls it.
pub(crate) struct Within<F> {
    handle: Handle,
    future: Pin<Box<F>>,
}

impl<F> Within<F> {
    pub(crate) fn new(handle: &Handle, future: F) -> Self {
        Self { handle: handle.clone(), future: Box::pin(future) }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let handle = self.handle.clone();
        let _inside = handle.enter();
        self.future.as_mut().poll(cx)
    }
}

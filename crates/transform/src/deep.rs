//! Room on the stack for recursive readers of expressions.

use std::{cell::Cell, thread};

use millstream_graph::SchemaError;

/// The SQL parser and planner recurse with frames of many kilobytes. At the depth that expressions are bounded to they
/// need some 8 MB in an unoptimised build, more than the 2 MB that most threads have.
const STACK: usize = 32 * 1024 * 1024;

thread_local! {
    static DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread with a deep stack and waits for it. A panic in it becomes a problem.
///
/// The thread ends before this returns. Expressions are read and typed once, so that its cost does not matter.
pub(crate) fn deep<T: Send>(work: impl FnOnce() -> Result<T, SchemaError> + Send) -> Result<T, SchemaError> {
    if DEEP.get() {
        return work();
    }
    thread::scope(|scope| {
        let entered = || {
            DEEP.set(true);
            work()
        };
        let thread = thread::Builder::new().name("expressions".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, entered) {
            Ok(running) => running
                .join()
                .unwrap_or_else(|_| Err(SchemaError::new("an expression in it is not supported"))),
            Err(error) => Err(SchemaError::new(format!("no thread to read expressions on: {error}"))),
        }
    })
}

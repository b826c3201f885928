//! Work to be counted in instructions, which stay the same on a busy machine: see `scripts/instructions.sh`.
//!
//! Each case is prepared, run until everything that is kept between runs is there, and then run `TIMES` times inside
//! [`counted`], the only function whose instructions are counted.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench is no interface, and fails loudly"
)]

/// The allocator of the `millstream` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod cases;

/// How often a case runs while it is counted.
const TIMES: usize = 200;

/// One pass through what is to be counted.
type Work = Box<dyn FnMut()>;

fn main() {
    // The engine asks the runtime for the time; nothing here waits for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let cases = cases::all();
    // `cargo bench` passes flags; without a name every case runs once, so that none breaks unseen.
    let Some(name) = std::env::args().nth(1).filter(|name| !name.starts_with("--")) else {
        cases.iter().for_each(|(name, prepare)| {
            prepare()();
            println!("{name}");
        });
        return;
    };
    let (_, prepare) = cases.iter().find(|(known, _)| *known == name).unwrap();
    let mut work = prepare();
    (0..TIMES).for_each(|_| work());
    counted(&mut work);
}

#[inline(never)]
fn counted(work: &mut Work) {
    for _ in 0..TIMES {
        work();
    }
}

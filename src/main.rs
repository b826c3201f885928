//! The `millstream` binary; everything it does is in `millstream-serve`.

/// A run of one row makes some hundred small allocations, many of which are freed on another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    millstream::cli::main()
}

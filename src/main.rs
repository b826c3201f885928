//! The `millstream` binary; everything it does is in `millstream-serve`.

fn main() -> std::process::ExitCode {
    millstream::cli::main()
}

//! The `lifeboat` command: a thin shell around the library.

fn main() -> std::process::ExitCode {
    lifeboat::cli::main()
}

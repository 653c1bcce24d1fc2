//! The command line of `drydock` with `build`.

use std::process::ExitCode;

/// The `main` function of `drydock`.
pub fn main() -> ExitCode {
    registry::cli::main()
}

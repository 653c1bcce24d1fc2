//! The program of step 13: `drydock`, with registries.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry::cli::main()
}

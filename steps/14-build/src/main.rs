//! The program of step 14: `drydock`, with `build`.

use std::process::ExitCode;

fn main() -> ExitCode {
    build::cli::main()
}

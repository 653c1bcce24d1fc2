//! The program of step 12: `drydock`, with containers that stay.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifecycle::cli::main()
}

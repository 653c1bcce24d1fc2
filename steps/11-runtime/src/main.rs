//! `drydock-runtime`: an OCI runtime.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main()
}

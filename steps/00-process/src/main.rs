//! `step-00`: launch a process, isolated in nothing.

use std::process::ExitCode;

use clap::Parser;
use process::{CommandArgs, Container};

/// Launch an ordinary process
///
/// Clones a child, holds it on a pipe until the host is ready, releases it,
/// and waits for its end. Signals are passed on to the command; the terminal
/// is handed over to it. Nothing is isolated yet.
#[derive(Parser)]
#[command(name = "step-00", version, after_long_help = process::cli::EXIT_STATUS)]
struct Args {
    #[command(flatten)]
    command: CommandArgs,
}

fn main() -> ExitCode {
    process::main(|args: Args| Container::new(args.command.command()).run())
}

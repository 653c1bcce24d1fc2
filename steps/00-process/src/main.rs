//! `step-00`: an ordinary process, without any isolation.

use std::process::ExitCode;

use clap::Parser;
use process::cli::after_help;
use process::{CommandArgs, Container};

/// Launch an ordinary process
///
/// Clones a child, blocks it on a pipe until the host is prepared, releases it,
/// and waits for it to end. Signals are forwarded to the command, and it gets
/// the terminal. Nothing is isolated yet.
#[derive(Parser)]
#[command(name = "step-00", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
struct Args {
    #[command(flatten)]
    command: CommandArgs,
}

const EXAMPLES: &str = "
  step-00                    a shell, as a job of its own
  step-00 -v echo hello      say what the launcher does
  step-00 sh -c 'exit 3'     end with status 3";

const SEE_ALSO: &str = "clone(2), execve(2), waitpid(2), signalfd(2), credentials(7)";

fn main() -> ExitCode {
    process::main(|args: Args| Container::new(args.command.command()).run())
}

//! `step-04`: a process with a root file system of its own.

use std::process::ExitCode;

use clap::Parser;
use mount::{Mount, MountArgs};
use process::{CommandArgs, Container};

/// Launch a process with mounts, and a root, of its own
#[derive(Parser)]
#[command(name = "step-04", version, after_long_help = process::cli::EXIT_STATUS)]
struct Args {
    #[command(flatten)]
    mount: MountArgs,
    #[command(flatten)]
    command: CommandArgs,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        Container::new(args.command.command())
            .with(Mount::new(args.mount))
            .run()
    })
}

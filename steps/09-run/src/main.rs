//! `drydock`: run a command in a new container.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::image::tool::{self, ImageTool};

/// Keep images
#[derive(Parser)]
#[command(name = "drydock", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Images(ImageTool),
}

fn main() -> ExitCode {
    process::main(|args: Args| match args.command {
        Command::Images(tool) => tool::run(tool),
    })
}

//! `step-01`: a process with a host name of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use process::cli::after_help;
use process::{CommandArgs, Container};
use uts::table::{self, NamespacesArgs};
use uts::{Uts, UtsSettings};

/// Launch a process in a UTS namespace of its own
///
/// The command starts with a copy of the host's names. The options below, or
/// the command itself, change the copy only.
#[derive(Parser)]
#[command(name = "step-01", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    uts: UtsSettings,
    #[command(flatten)]
    command: CommandArgs,
    #[command(subcommand)]
    tool: Option<Tool>,
}

#[derive(Subcommand)]
enum Tool {
    /// Compare the namespaces of a process with those of the caller
    ///
    /// Prints a line for each type: the inode numbers of both namespaces,
    /// whether they differ, and the user namespace that owns the process's
    /// namespace (- if the caller may not see it).
    Namespaces(NamespacesArgs),
}

const EXAMPLES: &str = "
  step-01 --hostname box uname -n     print box
  step-01 --uts container:4711 sh     a shell under the host name of process 4711
  step-01 namespaces 4711             compare its namespaces with the caller's
  step-01 -- namespaces               run a command that is called namespaces";

const SEE_ALSO: &str = "uts_namespaces(7), namespaces(7), clone(2), setns(2), sethostname(2)";

fn main() -> ExitCode {
    process::main(|args: Args| match args.tool {
        Some(Tool::Namespaces(args)) => table::print(args),
        None => Container::new(args.command.command())
            .with(Uts::new(args.uts))
            .run(),
    })
}

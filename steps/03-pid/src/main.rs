//! `step-03`: a process that is PID 1.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipc::{Ipc, IpcSettings};
use pid::pids::{self, PidsArgs};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container};
use uts::{Uts, UtsSettings};

/// Launch a process as PID 1 of a PID namespace of its own
///
/// The command is PID 1 and can signal only its own descendants. ps(1) still
/// shows the host's processes until step 04 mounts a new /proc. When PID 1
/// ends, the kernel kills all other processes of the namespace.
///
/// PID 1 does not receive signals for which it has no handler, except SIGKILL
/// and SIGSTOP from outside: Ctrl-C does not end `sleep`. With --init it does.
#[derive(Parser)]
#[command(name = "step-03", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    uts: UtsSettings,
    #[command(flatten)]
    ipc: IpcSettings,
    #[command(flatten)]
    pid: PidSettings,
    #[command(flatten)]
    command: CommandArgs,
    #[command(subcommand)]
    tool: Option<Tool>,
}

#[derive(Subcommand)]
enum Tool {
    /// List the processes of containers
    ///
    /// Prints a line for each process: its PID here, its PIDs in nested PID
    /// namespaces, the inode number of its own PID namespace (- if the caller
    /// may not see it), its state and its command.
    Pids(PidsArgs),
}

const EXAMPLES: &str = "
  step-03 sh -c 'echo $$'             print 1
  step-03 --init sleep 100            PID 1 is an init: Ctrl-C ends it
  step-03 --pid container:4711 sh     a shell among the processes of process 4711
  step-03 pids                        the processes of all containers, under all their PIDs";

const SEE_ALSO: &str = "pid_namespaces(7), clone(2), wait(2), kill(2), proc_pid_status(5)";

fn main() -> ExitCode {
    pid::main(|args: Args| match args.tool {
        Some(Tool::Pids(args)) => pids::print(args),
        None => Container::new(args.command.command())
            .with(Uts::new(args.uts))
            .with(Ipc::new(args.ipc))
            .with(PidNamespace::new(args.pid))
            .run(),
    })
}

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
/// The command sees no process but its own descendants, once a /proc of its
/// own is mounted (step 04): until then ps(1) still reads the host's. When it
/// ends, the kernel kills what is left of them.
///
/// As PID 1 it gets no signal from inside that it has no handler for, and from
/// outside only SIGKILL and SIGSTOP of these: Ctrl-C does not end `sleep`.
/// With --init it does.
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
    /// Show the processes of containers as the host sees them
    ///
    /// A line a process: its PID here, its PIDs in the PID namespaces further
    /// in, the inode of its own PID namespace (- where the caller may not see
    /// it), its state and its command.
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

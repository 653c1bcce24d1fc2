//! `step-02`: a process with IPC objects of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipc::tool::{self, IpcTool};
use ipc::{Ipc, IpcSettings};
use process::cli::after_help;
use process::{CommandArgs, Container};
use uts::{Uts, UtsSettings};

/// Launch a process in an IPC namespace of its own
///
/// System V message queues, semaphores, shared memory and POSIX message queues
/// are visible only in the namespace in which they were created. The kernel
/// removes them with the last process of the namespace.
#[derive(Parser)]
#[command(name = "step-02", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    uts: UtsSettings,
    #[command(flatten)]
    ipc: IpcSettings,
    #[command(flatten)]
    command: CommandArgs,
    #[command(subcommand)]
    tool: Option<Tool>,
}

#[derive(Subcommand)]
enum Tool {
    /// List, create and remove IPC objects in the caller's namespace
    #[command(subcommand)]
    Ipc(IpcTool),
}

const EXAMPLES: &str = "
  step-02 ipc make queue              make a System V message queue, here
  step-02 step-02 ipc ls              list the objects of a new namespace: none
  step-02 --ipc container:4711 sh     a shell among the IPC objects of process 4711
  step-02 ipc make mqueue /jobs       make a POSIX message queue
  step-02 ipc rm mqueue /jobs         remove it";

const SEE_ALSO: &str = "ipc_namespaces(7), sysvipc(7), mq_overview(7), ipcmk(1), ipcs(1), ipcrm(1)";

fn main() -> ExitCode {
    process::main(|args: Args| match args.tool {
        Some(Tool::Ipc(tool)) => tool::run(tool),
        None => Container::new(args.command.command())
            .with(Uts::new(args.uts))
            .with(Ipc::new(args.ipc))
            .run(),
    })
}

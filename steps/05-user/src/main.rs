//! `step-05`: a process that is root inside and unprivileged outside.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipc::{Ipc, IpcSettings};
use mount::{Mount, MountSettings};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container};
use user::{Credentials, User, UserSettings, caps};
use uts::{Uts, UtsSettings};

/// Launch a process in a user namespace of its own
///
/// An ordinary user becomes root inside, and may create the namespaces of the
/// other steps. Outside, root inside has the permissions of the caller and no
/// others: files that it creates belong to the caller.
#[derive(Parser)]
#[command(name = "step-05", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    user: UserSettings,
    #[command(flatten)]
    uts: UtsSettings,
    #[command(flatten)]
    ipc: IpcSettings,
    #[command(flatten)]
    pid: PidSettings,
    #[command(flatten)]
    mount: MountSettings,
    #[command(flatten)]
    command: CommandArgs,
    #[command(subcommand)]
    tool: Option<Tool>,
}

#[derive(Subcommand)]
enum Tool {
    /// Show which capabilities root inside can use, by trying each
    ///
    /// No attempt changes anything.
    Caps {
        /// Try them as the caller, without a new user namespace
        #[arg(long)]
        here: bool,
        #[command(flatten)]
        user: UserSettings,
    },
}

const EXAMPLES: &str = "
  step-05 id                          uid=0(root), for an ordinary user
  step-05 --map-none id               uid=65534: nobody is mapped yet
  step-05 --rootfs DIR sh             a root of one's own, without sudo
  step-05 --map-auto --user 33 id     another user, of the caller's ranges
  sudo step-05 --uid-map 0:100000:65536 sh
                                      root inside, UID 100000 outside
  step-05 caps                        what root inside may do, and what not";

const SEE_ALSO: &str =
    "user_namespaces(7), capabilities(7), credentials(7), newuidmap(1), subuid(5)";

fn main() -> ExitCode {
    pid::main(|mut args: Args| {
        let mut own = None;
        match args.tool.take() {
            Some(Tool::Caps { here: true, .. }) => return caps::print(),
            Some(Tool::Caps { user, .. }) => {
                args.user = user;
                args.command.command = caps::inside();
                own = Some(pid::init::seal()?);
            }
            None => {}
        }
        let credentials = Credentials::new(&args.user);
        Container::new(args.command.command())
            .program(own)
            .with(User::new(args.user))
            .with(Uts::new(args.uts))
            .with(Ipc::new(args.ipc))
            .with(PidNamespace::new(args.pid))
            .with(Mount::new(args.mount))
            .with(credentials)
            .run()
    })
}

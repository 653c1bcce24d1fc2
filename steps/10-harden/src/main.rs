//! `step-10`: a process that has given up what it does not need.

use std::process::ExitCode;

use anyhow::Result;
use cgroups::{CgroupSettings, Cgroups};
use clap::Parser;
use harden::cli::tool::{self, Tool};
use harden::{Harden, HardenSettings, Sysctls, TimeNamespace};
use ipc::{Ipc, IpcSettings};
use mount::{Mount, MountSettings, Privileges, RootTree};
use net::{Net, NetSettings};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container, Exit};
use user::{Credentials, User, UserSettings};
use uts::{Uts, UtsSettings};

/// Launch a process that has given up what it does not need
///
/// The command has fewer capabilities than root, and a filter decides on each
/// of its system calls: by default with the meaning of Docker's profile for the
/// capabilities that it has. The filter is loaded last, when only execve(2) is
/// left to do.
#[derive(Parser)]
#[command(name = "step-10", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    harden: HardenSettings,
    #[command(flatten)]
    user: UserSettings,
    #[command(flatten)]
    cgroups: CgroupSettings,
    #[command(flatten)]
    uts: UtsSettings,
    #[command(flatten)]
    ipc: IpcSettings,
    #[command(flatten)]
    pid: PidSettings,
    #[command(flatten)]
    net: NetSettings,
    #[command(flatten)]
    mount: MountSettings,
    #[command(flatten)]
    command: CommandArgs,
    #[command(subcommand)]
    tool: Option<Tool>,
}

const EXAMPLES: &str = "
  step-10 unshare -U true                 a new user namespace: refused
  step-10 --cap-add SYS_ADMIN sh          the filter follows the capabilities
  step-10 --security-opt seccomp=p.json sh
                                          another profile, as Docker has them
  step-10 seccomp explain mount           what the filter says of a call, and why
  step-10 seccomp show | less             the program
  step-10 seccomp record ls > ls.json     a profile to begin with";

const SEE_ALSO: &str = "seccomp(2), capabilities(7), execve(2), prctl(2), seccomp_unotify(2)";

fn main() -> ExitCode {
    pid::main(|args: Args| match args.tool {
        Some(tool) => {
            kit::set_verbose(args.command.verbose);
            tool::run(tool)
        }
        None => run(args),
    })
}

fn run(mut args: Args) -> Result<Exit> {
    let privileges = match args.harden.privileged {
        true => Privileges::All,
        false => Privileges::Reduced,
    };
    let tree = RootTree::of(args.mount.rootfs.as_deref());
    args.mount.bind.extend(args.cgroups.device_binds(tree));
    let credentials = Credentials::new(&args.user);
    let cgroups = Cgroups::new(args.cgroups).privileges(privileges);
    let view = cgroups.view(tree).beside(&args.mount);
    let net = Net::new(args.net).hostname(args.uts.hostname_inside()?);
    let files = net.files(tree);
    let sysctls = Sysctls::new(args.harden.sysctl.clone());
    let time = TimeNamespace::new(args.harden.time_offset.clone());
    let harden = Harden::new(args.harden);
    let seal = harden.seal_of_init();
    Container::new(args.command.command())
        .with(User::new(args.user))
        .with(cgroups)
        .with(Uts::new(args.uts))
        .with(Ipc::new(args.ipc))
        .with(harden)
        .with(PidNamespace::new(args.pid).sealed(Some(seal)))
        .with(net)
        .with(sysctls)
        .with(time)
        .with(Mount::new(args.mount).offer(files).privileges(privileges))
        .with(view)
        .with(credentials)
        .run()
}

//! `step-07`: a process with a control group of its own.

use std::process::ExitCode;

use anyhow::Result;
use cgroups::tool::{self, Tool};
use cgroups::{CgroupSettings, Cgroups};
use clap::Parser;
use ipc::{Ipc, IpcSettings};
use mount::{Mount, MountSettings, RootTree};
use net::{Net, NetSettings};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container, Exit};
use user::{Credentials, User, UserSettings};
use uts::{Uts, UtsSettings};

/// Launch a process in a control group of its own
///
/// The group exists and its limits apply before the command starts. All
/// descendants of the command belong to it. On v1 there is a group in each
/// hierarchy that is needed, on v2 there is one. When the command ends,
/// remaining processes are killed and the group is removed. A limit that this
/// host cannot enforce is an error.
#[derive(Parser)]
#[command(name = "step-07", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
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
  step-07 -m 128m --cpus 0.5 sh       a shell with 128 MiB of memory and half a CPU
  step-07 --pids-limit 20 sh          fork(2) fails at the 21st process
  step-07 --device /dev/fuse sh       allow one device more than the usual ones
  step-07 stats                       what all containers use
  step-07 pause 4711                  freeze the container of process 4711
  step-07 hierarchy rules             try the rules that cgroups keep";

const SEE_ALSO: &str = "cgroups(7), cgroup_namespaces(7), clone(2), mount(8), cpuset(7), bpf(2)";

fn main() -> ExitCode {
    pid::main(|args: Args| match args.tool {
        Some(tool) => tool::run(tool),
        None => run(args),
    })
}

fn run(mut args: Args) -> Result<Exit> {
    let tree = RootTree::of(args.mount.rootfs.as_deref());
    args.mount.bind.extend(args.cgroups.device_binds(tree));
    let credentials = Credentials::new(&args.user);
    let cgroups = Cgroups::new(args.cgroups);
    let view = cgroups.view(tree).beside(&args.mount);
    let net = Net::new(args.net).hostname(args.uts.hostname_inside()?);
    let files = net.files(tree);
    Container::new(args.command.command())
        .with(User::new(args.user))
        .with(cgroups)
        .with(Uts::new(args.uts))
        .with(Ipc::new(args.ipc))
        .with(PidNamespace::new(args.pid))
        .with(net)
        .with(Mount::new(args.mount).offer(files))
        .with(view)
        .with(credentials)
        .run()
}

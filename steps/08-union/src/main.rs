//! `step-08`: a process whose root is a stack of layers.

use std::process::ExitCode;

use anyhow::Result;
use cgroups::{CgroupSettings, Cgroups};
use clap::{Args, Parser, Subcommand};
use ipc::{Ipc, IpcSettings};
use kit::set_verbose;
use mount::{Mount, MountSettings, RootTree};
use net::{Net, NetSettings};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container, Exit};
use union::cli::aufs::{self, AufsTool};
use union::cli::{self, Tool};
use union::{Layers, Union, UnionSettings};
use user::{Credentials, User, UserSettings};
use uts::{Uts, UtsSettings};

/// Launch a process whose root is a stack of layers
///
/// The read-only layers of an image are shared by all its containers. A
/// writable layer on top takes the container's changes, and is removed with the
/// container. Without an option of this step, the command runs as in step 07.
#[derive(Parser)]
#[command(name = "step-08", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
#[command(args_conflicts_with_subcommands = true)]
struct Step {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    tool: Option<Sub>,
}

#[derive(Args)]
struct Run {
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
    union: UnionSettings,
    #[command(flatten)]
    mount: MountSettings,
    #[command(flatten)]
    command: CommandArgs,
}

#[derive(Subcommand)]
enum Sub {
    /// Containers on layers
    #[command(subcommand)]
    Union(UnionTool),
    #[command(flatten)]
    Tool(Tool),
    #[command(flatten)]
    Aufs(AufsTool),
}

#[derive(Subcommand)]
enum UnionTool {
    /// Run a command in a container on layers
    Run(Box<Run>),
}

const EXAMPLES: &str = "
  step-08 drivers                               which drivers work here
  step-08 layer create box --from DIR           make an image of a directory
  step-08 union run --layer box sh              a container on it
  step-08 union run --layer box --name one --keep sh -c 'rm /bin/vi'
  step-08 layer diff one                        what that one has changed
  step-08 where --layer one /bin/vi             which layer says what about a file
  step-08 union run --driver vfs --rootfs DIR sh
  step-08 mount -t aufs -o dirs=./rw:./ro none ./mnt
  step-08 compare                               what each driver costs";

const SEE_ALSO: &str = "mount(2), fsopen(2), move_mount(2), overlayfs.rst, aufs(5), btrfs(5), \
                        dmsetup(8), losetup(8), fuse(4)";

fn main() -> ExitCode {
    pid::main(|step: Step| {
        set_verbose(step.run.command.verbose);
        match step.tool {
            Some(Sub::Tool(tool)) => cli::run(tool),
            Some(Sub::Aufs(tool)) => aufs::run(tool),
            Some(Sub::Union(UnionTool::Run(run))) => launch(*run, Layers::Always),
            None => launch(step.run, Layers::IfAsked),
        }
    })
}

fn launch(mut run: Run, layers: Layers) -> Result<Exit> {
    let command = run.command.command();
    let union = Union::plan(run.union, run.mount.rootfs.as_deref(), layers)?
        .for_users(run.user.other_users()?)?;
    if let Some(root) = union.mount_point() {
        run.mount.rootfs = Some(root);
    }
    let tree = RootTree::of(run.mount.rootfs.as_deref());
    run.mount.bind.extend(run.cgroups.device_binds(tree));
    let cgroups = Cgroups::new(run.cgroups);
    let view = cgroups.view(tree).beside(&run.mount);
    let net = Net::new(run.net).hostname(run.uts.hostname_inside()?);
    let files = net.files(tree);
    let credentials = Credentials::new(&run.user);
    Container::new(command)
        .with(User::new(run.user))
        .with(cgroups)
        .with(Uts::new(run.uts))
        .with(Ipc::new(run.ipc))
        .with(PidNamespace::new(run.pid))
        .with(net)
        .with(union)
        .with(Mount::new(run.mount).offer(files))
        .with(view)
        .with(credentials)
        .run()
}

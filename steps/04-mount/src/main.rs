//! `step-04`: a process with a root file system of its own.

use std::process::ExitCode;

use clap::Parser;
use ipc::{Ipc, IpcSettings};
use mount::{Mount, MountSettings};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container};
use uts::{Uts, UtsSettings};

/// Launch a process in a mount namespace, with a root of its own
///
/// With --rootfs, that directory becomes the root, with a new /proc, /sys and
/// /dev, and the host's tree is unmounted. The host does not see mounts made
/// inside. They end with the last process of the namespace.
#[derive(Parser)]
#[command(name = "step-04", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
struct Args {
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
}

const EXAMPLES: &str = "
  step-04 ps                                       only itself: /proc is the container's
  step-04 --rootfs DIR sh                          a shell in another root
  step-04 --rootfs DIR --bind .:/src:ro ls /src    with a directory of the host, read-only
  step-04 --rootfs DIR --read-only --tmpfs /tmp sh
  step-04 --rootfs DIR --chroot sh                 a root that one can leave: try it
  step-04 --propagation slave sh                   mount something on the host, and see it inside
  step-04 --rootfs DIR cat /proc/self/mountinfo    every mount and its propagation";

const SEE_ALSO: &str = "mount_namespaces(7), pivot_root(2), mount(2), open_tree(2), \
move_mount(2), openat2(2), chroot(2), proc_pid_mountinfo(5)";

fn main() -> ExitCode {
    pid::main(|args: Args| {
        Container::new(args.command.command())
            .with(Uts::new(args.uts))
            .with(Ipc::new(args.ipc))
            .with(PidNamespace::new(args.pid))
            .with(Mount::new(args.mount))
            .run()
    })
}

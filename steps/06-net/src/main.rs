//! `step-06`: a process with a network of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipc::{Ipc, IpcSettings};
use mount::{Mount, MountSettings, RootTree};
use net::tool;
use net::{Net, NetSettings};
use pid::{PidNamespace, PidSettings};
use process::cli::after_help;
use process::{CommandArgs, Container};
use user::{Credentials, User, UserSettings};
use uts::{Uts, UtsSettings};

/// Launch a process in a network namespace of its own
///
/// The namespace has a loopback device. With --network bridge the command has
/// an IP address of its own, and reaches the other containers, the host, and
/// the networks that the host reaches. Other hosts reach its published ports.
#[derive(Parser)]
#[command(name = "step-06", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
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
    net: NetSettings,
    #[command(flatten)]
    mount: MountSettings,
    #[command(flatten)]
    command: CommandArgs,
    #[command(subcommand)]
    tool: Option<Tool>,
}

#[derive(Subcommand)]
enum Tool {
    /// Show the bridge, and the addresses and published ports of containers
    Network,
    /// Remove network settings that killed launchers have left on the host
    Restore,
}

const EXAMPLES: &str = "
  step-06 ip address                             a loopback device, up, and nothing else
  step-06 --network bridge ping 192.0.2.1        to the outside, under the host's address
  step-06 -p 8080:80 httpd -f -p 80              port 8080 of the host leads to it
  step-06 -p 127.0.0.1:5353:53/udp named -g      for the host alone
  step-06 --network container:4711 ss -lnt       what listens in the network of process 4711
  step-06 network                                who has which address

Environment:
  DRYDOCK_STATE  directory for the state, instead of /run/drydock";

const SEE_ALSO: &str = "network_namespaces(7), veth(4), netlink(7), rtnetlink(7), nft(8), \
ip(7), resolv.conf(5), hosts(5)";

fn main() -> ExitCode {
    pid::main(|args: Args| match args.tool {
        Some(Tool::Network) => tool::show(),
        Some(Tool::Restore) => tool::restore(),
        None => {
            let credentials = Credentials::new(&args.user);
            let net = Net::new(args.net).hostname(args.uts.hostname_inside()?);
            let files = net.files(RootTree::of(args.mount.rootfs.as_deref()));
            Container::new(args.command.command())
                .with(User::new(args.user))
                .with(Uts::new(args.uts))
                .with(Ipc::new(args.ipc))
                .with(PidNamespace::new(args.pid))
                .with(net)
                .with(Mount::new(args.mount).offer(files))
                .with(credentials)
                .run()
        }
    })
}

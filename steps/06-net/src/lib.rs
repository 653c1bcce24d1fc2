//! Step 06: the network namespace (network_namespaces(7)).
//!
//! A new one holds a loopback device, which is down, and nothing else. To be of
//! use it needs a cable (veth(4)), something to plug that into (a bridge),
//! addresses, routes, names, and on the host rules by which packets get out
//! and, to published ports, in (nf_tables).
//!
//! | module | what |
//! |---|---|
//! | [`mode`] | none, host, bridge or container:PID |
//! | [`netlink`] | the language of all that follows: requests and answers |
//! | [`link`], [`address`], [`route`] | devices, their addresses, the ways out |
//! | [`bridge`], [`nat`], [`forwarding`] | what all containers share: the switch, the rules, the sysctls |
//! | [`network`] | these three as one: comes with the first container, goes with the last |
//! | [`nftables`], [`table`] | rules, and the transactions that install them |
//! | [`publish`], [`reserve`], [`conntrack`] | ports of the host that lead into a container |
//! | [`ipam`] | who gets which address |
//! | [`connection`] | one container's part of all this |
//! | [`state`], [`owner`], [`reclaim`] | what was made, by whom, and how it goes |
//! | [`resolv`] | resolv.conf, hosts and hostname |
//! | [`firewall`] | packet filters that stand in the way |

pub mod address;
pub mod bridge;
pub mod connection;
pub mod conntrack;
pub mod firewall;
pub mod forwarding;
pub mod ipam;
pub mod link;
pub mod mode;
pub mod nat;
pub mod netlink;
pub mod network;
pub mod nftables;
pub mod owner;
pub mod publish;
pub mod reclaim;
pub mod reserve;
pub mod resolv;
pub mod route;
pub mod state;
pub mod table;
pub mod tool;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, gethostname};
use process::{Isolation, say};
use uts::Namespace;

use crate::connection::Connection;
use crate::mode::NetworkMode;
use crate::owner::Owner;
use crate::publish::Publish;
use crate::resolv::{Files, HostEntry};
use crate::state::{Locked, Member};

/// The options of the network.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network namespace (step 06)")]
pub struct NetArgs {
    /// Which network: none (a loopback device), bridge (with the other containers,
    /// the host and the outside; needs root), host, or container:PID (that
    /// process's). Without it: bridge if an option below needs that, else none
    #[arg(long, value_name = "MODE")]
    pub network: Option<NetworkMode>,

    /// Lead connections to a port of the host into the container; may be given
    /// several times
    #[arg(short, long, value_name = "[IP:]HOSTPORT:PORT[/udp]")]
    pub publish: Vec<Publish>,

    /// Address on the bridge, instead of the lowest that is free
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<Ipv4Addr>,

    /// Subnet of the bridge: for the first container on it, which makes it
    #[arg(long, value_name = "NETWORK/PREFIX")]
    pub subnet: Option<Ipv4Net>,

    /// Add an IPv6 address that reaches the host and the containers which have one
    #[arg(long)]
    pub ip6: bool,

    /// Name server, instead of the host's; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,

    /// Name for /etc/hosts; may be given several times
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<HostEntry>,
}

impl NetArgs {
    /// The mode, also where none was given.
    ///
    /// A process that asks for nothing gets no network: what a learner runs
    /// then changes nothing on the host and works without root. Who publishes
    /// a port or wants an address has asked for a bridge.
    fn mode(&self) -> NetworkMode {
        match (self.network, self.needs_bridge()) {
            (Some(mode), _) => mode,
            (None, Some(_)) => NetworkMode::Bridge,
            (None, None) => NetworkMode::None,
        }
    }

    fn needs_bridge(&self) -> Option<&'static str> {
        [
            ("--publish", !self.publish.is_empty()),
            ("--ip", self.ip.is_some()),
            ("--subnet", self.subnet.is_some()),
            ("--ip6", self.ip6),
        ]
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
    }

    fn check(&self) -> Result<()> {
        let mode = self.mode();
        if let Some(option) = self.needs_bridge().filter(|_| mode != NetworkMode::Bridge) {
            bail!("{option} needs --network bridge, not {mode}");
        }
        if let Some(subnet) = self.subnet {
            ipam::check(subnet).context("--subnet")?;
        }
        publish::check(&self.publish)
    }
}

/// The beginning of the names of devices that are the host's ends of cables.
pub const VETH: &str = "veth";

/// The name of the host's end of a container's cable.
pub fn veth(id: &str) -> String {
    format!("{VETH}{id}")
}

/// The comment of a container's rules, by which they are found again.
pub fn comment(id: &str) -> String {
    format!("container {id}")
}

/// The network of a container.
pub struct Net {
    args: NetArgs,
    namespace: Namespace,
    id: String,
    directory: PathBuf,
    hostname: Option<OsString>,
    connection: Option<Connection>,
}

impl Net {
    /// The isolation that `args` describe. They are checked in `prepare`.
    ///
    /// Its id, by which devices, rules and files are named, is the launcher's
    /// PID: unique among those that live, and one sees what belongs to whom.
    pub fn new(args: NetArgs) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let pid = std::process::id();
        let id = match MADE.fetch_add(1, Ordering::Relaxed) {
            0 => pid.to_string(),
            n => format!("{pid}-{n}"),
        };
        Net {
            namespace: Namespace::new(CloneFlags::CLONE_NEWNET, args.mode().namespace()),
            args,
            id,
            directory: state::directory(),
            hostname: None,
            connection: None,
        }
    }

    /// The host name that step 01 gives the container; without one it has the
    /// launcher's.
    #[must_use]
    pub fn hostname(mut self, name: Option<OsString>) -> Self {
        self.hostname = name;
        self
    }

    /// The container's resolv.conf, hosts and hostname, as `--bind` of step 04
    /// spells them, to be added to its options. What the user mounts in their
    /// place wins. Without a root file system of its own the container sees
    /// the host's files, which do for all but those on the bridge.
    pub fn binds(&self, rootfs: Option<&Path>, own: &[OsString]) -> Vec<OsString> {
        let bridge = self.args.mode() == NetworkMode::Bridge;
        let is_own = |target: &Path| {
            own.iter().any(|bind| {
                let mut parts = bind.as_bytes().split(|byte| *byte == b':');
                parts.nth(1) == Some(target.as_os_str().as_bytes())
            })
        };
        Files::NAMES
            .iter()
            .map(|name| (name, Path::new("/etc").join(name)))
            .filter(|(_, target)| rootfs.is_some() || (bridge && target.exists()))
            .filter(|(_, target)| !is_own(target))
            .map(|(name, target)| {
                let mut bind = self.directory.join(&self.id).join(name).into_os_string();
                bind.push(":");
                bind.push(target);
                bind
            })
            .collect()
    }

    fn files(&self) -> Result<Files> {
        let hostname = match &self.hostname {
            Some(name) => name.clone(),
            None => gethostname().context("gethostname")?,
        };
        let hostname = hostname.to_string_lossy();
        let args = &self.args;
        let (resolv_conf, hosts) = match args.mode() {
            NetworkMode::Bridge => {
                let (text, found) = resolv::for_bridge(&args.dns)?;
                if !found {
                    warn("no name server that a container can reach: give one with --dns");
                }
                (Some(text), None)
            }
            NetworkMode::None => (Some(String::new()), None),
            NetworkMode::Host => (
                resolv::read("/etc/resolv.conf")?,
                resolv::read("/etc/hosts")?,
            ),
            NetworkMode::Container(pid) => (
                resolv::read_of_container(pid, "/etc/resolv.conf"),
                resolv::read_of_container(pid, "/etc/hosts"),
            ),
        };
        let address = self.connection.as_ref().map(|c| c.address);
        let own = || resolv::hosts(&hostname, address, &args.add_host);
        Ok(Files {
            resolv_conf: resolv_conf.unwrap_or_default(),
            hosts: hosts.unwrap_or_else(own),
            hostname: format!("{hostname}\n"),
        })
    }
}

impl Isolation for Net {
    fn name(&self) -> &'static str {
        "net"
    }

    fn namespaces(&self) -> CloneFlags {
        self.namespace.namespaces()
    }

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        self.namespace.joins()
    }

    fn prepare(&mut self) -> Result<()> {
        self.args.check()?;
        self.namespace.prepare()?;
        let mut locked = Locked::open(&self.directory)?;
        if self.args.mode() == NetworkMode::Bridge {
            let connection = Connection::prepare(&mut locked, &self.id, &self.args);
            self.connection = Some(connection.map_err(explained)?);
        } else {
            reclaim::sweep(&mut locked)?;
            let member = Member {
                owner: Owner::current()?,
                address: None,
                ports: Vec::new(),
            };
            locked.state.containers.insert(self.id.clone(), member);
            locked.save()?;
        }
        self.files()?.write(&locked.files_of(&self.id))
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        match &mut self.connection {
            Some(connection) => connection.plug_in(child),
            None => Ok(()),
        }
    }

    fn in_container(&mut self) -> Result<()> {
        if self.namespaces().is_empty() {
            return Ok(());
        }
        say!("ip link set lo up");
        link::set_up(&mut link::route_client()?, "lo")?;
        match &mut self.connection {
            Some(connection) => connection.configure(),
            None => Ok(()),
        }
    }

    fn cleanup(&mut self) -> Result<()> {
        let mut locked = Locked::open(&self.directory)?;
        reclaim::remove(&mut locked, &self.id)?;
        locked.close()?;
        // Not before its rules are gone may others have a port.
        self.connection = None;
        Ok(())
    }
}

fn warn(text: &str) {
    eprintln!("warning: net: {text}");
}

/// Adds to a refusal for lack of privilege what can be done about it.
fn explained(error: Error) -> Error {
    let refused = netlink::errno(&error).or_else(|| {
        let cause = error.root_cause();
        let io = cause.downcast_ref::<std::io::Error>()?.raw_os_error()?;
        Some(Errno::from_raw(io))
    });
    if !matches!(refused, Some(Errno::EPERM | Errno::EACCES)) {
        return error;
    }
    error.context(
        "a bridge needs root on the host (CAP_NET_ADMIN): use sudo, or --network none, host or \
         container:PID",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(publish: &[&str], network: Option<&str>) -> NetArgs {
        NetArgs {
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
            network: network.map(|text| text.parse().unwrap()),
            ..NetArgs::default()
        }
    }

    #[test]
    fn a_bridge_is_for_those_who_need_one() {
        assert_eq!(args(&[], None).mode(), NetworkMode::None);
        assert_eq!(args(&["80:80"], None).mode(), NetworkMode::Bridge);
        let error = args(&["80:80"], Some("host")).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "--publish needs --network bridge, not host"
        );
    }

    #[test]
    fn binds_leave_alone_what_the_user_mounts() {
        let net = Net::new(args(&[], None));
        let root = Some(Path::new("/srv"));
        assert_eq!(net.binds(root, &[]).len(), 3);
        assert_eq!(net.binds(None, &[]).len(), 0);
        let own = [OsString::from("/x:/etc/hosts:ro")];
        let binds = net.binds(root, &own);
        assert!(
            binds
                .iter()
                .all(|bind| !bind.as_bytes().ends_with(b"/etc/hosts"))
        );
        assert_eq!(binds.len(), 2);
    }

    #[test]
    fn names_of_devices_fit_into_the_kernels_buffer() {
        let longest = veth("4194304-999");
        assert!(longest.len() < nix::libc::IFNAMSIZ, "{longest}");
    }
}

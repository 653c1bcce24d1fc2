//! All that the containers on the bridge have in common: the bridge itself, the
//! table of the packet filter, and forwarding. It comes with the first of them
//! and goes with the last.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use ipnet::{Ipv4Net, Ipv6Net};
use kit::say;
use procfs::process::{Process, all_processes};
use serde::{Deserialize, Serialize};

use crate::bridge::ipam;
use crate::bridge::{self, BRIDGE};
use crate::kernel::forwarding::{self, Before};
use crate::kernel::link::Route;
use crate::kernel::route;
use crate::nat::rule::Rule;
use crate::nat::table::Netfilter;
use crate::nat::{self, table};

/// The network as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// The network namespace in which it lies, by its inode: that of the host,
    /// but for experiments.
    pub namespace: u64,
    /// The subnet of the bridge.
    pub subnet: Ipv4Net,
    /// Its IPv6 subnet, once a container has asked for one.
    pub subnet6: Option<Ipv6Net>,
    /// What has to be restored when it goes.
    pub before: Before,
}

impl Network {
    /// The network for a first container: chooses a subnet and remembers what
    /// is going to be changed, and changes nothing but the leftovers of a
    /// network that no state knows about.
    ///
    /// # Errors
    /// Those of [`ipam::choose`], and of netlink.
    pub(crate) fn plan(route: &mut Route, subnet: Option<Ipv4Net>) -> Result<Self> {
        if bridge::remove_lost(route)? {
            say!("removed a {BRIDGE} that was left behind");
        }
        let subnet = ipam::choose(subnet, &route::list(route, BRIDGE)?)?;
        say!("the subnet of the bridge is {subnet}");
        Ok(Network {
            namespace: current_namespace()?,
            subnet,
            subnet6: None,
            before: forwarding::remember()?,
        })
    }

    /// Makes the network, or whatever of it is missing, and returns the index
    /// of the bridge. `rules` are those of the containers that have published
    /// ports, in case the table has to be made.
    ///
    /// # Errors
    /// Those of netlink, nf_tables and /proc/sys.
    pub(crate) fn up(
        &self,
        route: &mut Route,
        netfilter: &mut Netfilter,
        rules: Vec<Rule>,
    ) -> Result<u32> {
        let bridge = bridge::up(route, self.subnet, self.subnet6)?;
        if !table::exists(netfilter)? {
            let router = self.before.is_empty();
            nat::install(netfilter, self.subnet, router, rules)?;
        }
        // Last, so that the host never forwards without the rules.
        forwarding::enable()?;
        Ok(bridge)
    }

    /// Removes the network.
    ///
    /// # Errors
    /// Those of netlink, nf_tables and /proc/sys.
    pub(crate) fn down(&self, route: &mut Route, netfilter: &mut Netfilter) -> Result<()> {
        forwarding::restore(&self.before)?;
        say!("nft delete table ip {}", table::TABLE);
        table::delete(netfilter)?;
        bridge::down(route)
    }

    /// Whether it lies in the network namespace of the caller.
    ///
    /// # Errors
    /// Those of stat(2).
    pub(crate) fn is_here(&self) -> Result<bool> {
        Ok(self.namespace == current_namespace()?)
    }

    /// Whether its network namespace still exists: a process is in it, or it is
    /// mounted, as `ip netns` does.
    pub(crate) fn exists(&self) -> bool {
        let name = format!("net:[{}]", self.namespace);
        let mounted = Process::myself()
            .and_then(|process| process.mountinfo())
            .is_ok_and(|mounts| mounts.into_iter().any(|mount| mount.root == name));
        let in_use = || {
            all_processes().is_ok_and(|processes| {
                processes.flatten().any(|process| {
                    let path = format!("/proc/{}/ns/net", process.pid());
                    fs::metadata(path).is_ok_and(|ns| ns.ino() == self.namespace)
                })
            })
        };
        mounted || in_use()
    }
}

fn current_namespace() -> Result<u64> {
    let namespace = fs::metadata("/proc/self/ns/net").context("stat /proc/self/ns/net")?;
    Ok(namespace.ino())
}

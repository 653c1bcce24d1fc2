//! The network that the containers on the bridge share: the bridge itself, the
//! table of the packet filter, and forwarding. The first container on the
//! bridge creates it, and the end of the last removes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use ipnet::{Ipv4Net, Ipv6Net};
use kit::say;
use procfs::process::{Process, all_processes};
use serde::{Deserialize, Serialize};

use crate::bridge::ipam;
use crate::bridge::user::{self, UserBridge};
use crate::bridge::{self, BRIDGE};
use crate::kernel::forwarding::{self, Before};
use crate::kernel::link::Route;
use crate::kernel::route;
use crate::nat::rule::Rule;
use crate::nat::table::Netfilter;
use crate::nat::{self, table};

/// The shared network, as the state records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// The inode of its network namespace, which is the host's except in
    /// experiments.
    pub namespace: u64,
    /// The subnet of the bridge.
    pub subnet: Ipv4Net,
    /// Its IPv6 subnet, from the first container with `--ip6` on.
    pub subnet6: Option<Ipv6Net>,
    /// The sysctls to restore when the network is removed.
    pub before: Before,
}

impl Network {
    /// Plans the network for a first container: chooses a subnet and records
    /// the sysctls that will change. It changes nothing, but removes the
    /// leftovers of a network that is in no state.
    pub(crate) fn plan(route: &mut Route, subnet: Option<Ipv4Net>) -> Result<Self> {
        if bridge::remove_lost(route)? {
            say!("removed a {BRIDGE} that was left behind");
        }
        for lost in user::remove_lost(route, &BTreeMap::new())? {
            say!("removed a {lost} that was left behind");
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

    /// Creates the network, or its missing parts, and returns the interface
    /// index of the bridge. `bridges` are those beside it, and `rules` those of
    /// all published ports, for a table that must be made anew.
    pub(crate) fn up(
        &self,
        route: &mut Route,
        netfilter: &mut Netfilter,
        (bridges, rules): (BTreeMap<String, UserBridge>, Vec<Rule>),
    ) -> Result<u32> {
        let bridge = bridge::up(route, self.subnet, self.subnet6)?;
        if !table::exists(netfilter)? {
            self.install(netfilter, &bridges, rules)?;
        }
        // Last, so that the host never forwards without the rules.
        forwarding::enable()?;
        Ok(bridge)
    }

    /// Makes the table anew, for other bridges than before. The kernel replaces
    /// it as a whole: no packet meets half of it.
    pub(crate) fn install(
        &self,
        netfilter: &mut Netfilter,
        bridges: &BTreeMap<String, UserBridge>,
        rules: Vec<Rule>,
    ) -> Result<()> {
        let router = self.before.is_empty();
        nat::install(netfilter, self.subnet, router, bridges, rules)
    }

    /// Removes the network.
    pub(crate) fn down(&self, route: &mut Route, netfilter: &mut Netfilter) -> Result<()> {
        forwarding::restore(&self.before)?;
        say!("nft delete table ip {}", table::TABLE);
        table::delete(netfilter)?;
        bridge::down(route)
    }

    /// Whether the network is in the caller's network namespace.
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

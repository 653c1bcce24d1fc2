//! One container's connection to the bridge: its address and its published
//! ports, from the reservation on the host to the device inside.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use kit::say;
use nix::unistd::Pid;

use crate::bridge::ipam;
use crate::bridge::network::Network;
use crate::bridge::{self, BRIDGE};
use crate::kernel::link::Route;
use crate::kernel::{address, conntrack, link, route};
use crate::ledger::reclaim;
use crate::ledger::reserve::{choose, reserve};
use crate::ledger::rules::{of_container, published};
use crate::ledger::state::{self, Endpoint, Locked, State};
use crate::nat::firewall;
use crate::nat::publish::Publish;
use crate::nat::table::{self, Transaction};
use crate::{NetSettings, veth};
use kit::ProcessIdentity;
use kit::warn;

/// The name of a container's device on the bridge, inside the container.
const INSIDE: &str = "eth0";

/// The time limit for the connection to become usable, in milliseconds.
const PATIENCE: u32 = 5000;

/// A container's connection to the bridge.
#[derive(Debug)]
pub(crate) struct Connection {
    /// A socket of the host's network namespace, in which it was opened. The
    /// child's copy stays there too, when the child is in a namespace of its
    /// own.
    host: Route,
    /// The name of the veth pair's host end.
    host_end: String,
    /// The interface index of the bridge.
    bridge: u32,
    subnet: Ipv4Net,
    /// The IPv6 subnet, for a container with `--ip6`.
    subnet6: Option<Ipv6Net>,
    /// The container's IPv4 address.
    pub address: Ipv4Addr,
    /// The sockets that keep its host ports from other programs.
    ports: Vec<OwnedFd>,
}

impl Connection {
    // ANCHOR: prepare
    /// Reserves an address and ports, records what is going to be made for
    /// them, and then makes all of it that does not need the container.
    pub(crate) fn prepare(locked: &mut Locked, id: &str, args: &NetSettings) -> Result<Self> {
        let mut route = link::route_client()?;
        link::check_privilege(&mut route)?;
        state::check_place(&mut locked.state)?;
        reclaim::sweep(locked)?;
        let mut netfilter = table::netfilter_client()?;
        let mut network = match locked.state.network.clone() {
            Some(network) => network,
            None => Network::plan(&mut route, args.subnet)?,
        };
        if let Some(subnet) = args.subnet.filter(|subnet| *subnet != network.subnet) {
            bail!(
                "--subnet {subnet}: the bridge has {} as long as there are containers on it",
                network.subnet
            );
        }
        if args.ip6 && network.subnet6.is_none() {
            network.subnet6 = Some(ipam::unique_local()?);
        }
        let address = ipam::allocate(network.subnet, &locked.state.addresses(), args.ip)?;
        let (publish, ports) = reserve_ports(&locked.state, &args.publish)?;
        let others = (locked.state.bridges.clone(), published(&locked.state));

        let member = Endpoint {
            owner: ProcessIdentity::current()?,
            address: Some(address),
            ports: publish.clone(),
            plugs: BTreeMap::new(),
        };
        locked.state.network = Some(network.clone());
        locked.state.containers.insert(id.to_owned(), member);
        locked.save()?;

        let bridge = network.up(&mut route, &mut netfilter, others)?;
        let mut transaction = Transaction::new();
        for rule in of_container(id, address, &publish) {
            transaction = transaction.rule(rule);
        }
        transaction.commit(&mut netfilter)?;
        conntrack::forget(&mut netfilter, &publish)?;
        for obstacle in firewall::obstacles(&mut netfilter, BRIDGE)? {
            warn!("net: {}", obstacle.warning(BRIDGE));
        }
        Ok(Connection {
            host: route,
            host_end: veth(id),
            bridge,
            subnet: network.subnet,
            subnet6: network.subnet6.filter(|_| args.ip6),
            address,
            ports,
        })
    }
    // ANCHOR_END: prepare

    // ANCHOR: plug_in
    /// Connects the network namespace of the process `child` to the bridge.
    pub(crate) fn plug_in(&mut self, child: Pid) -> Result<()> {
        let (host_end, mac) = (&self.host_end, address::mac(self.address));
        say!("ip link add {host_end} master {BRIDGE} up type veth peer {INSIDE} netns {child}");
        let host = &mut self.host;
        link::add_veth(host, host_end, self.bridge, child, INSIDE, mac)?;
        match self.ports.is_empty() {
            true => Ok(()),
            false => link::set_hairpin(host, host_end),
        }
    }
    // ANCHOR_END: plug_in

    /// The socket in the host's network namespace, through which the child
    /// checks in [`configure`](Self::configure) whether the bridge is ready.
    pub(crate) fn keeps(&self) -> BorrowedFd<'_> {
        self.host.as_fd()
    }

    // ANCHOR: configure
    /// In the container: gives the device its addresses and routes.
    pub(crate) fn configure(&mut self) -> Result<()> {
        if self.subnet6.is_none() {
            disable_ipv6(INSIDE)?;
        }
        // ANCHOR: exercise_connect
        let mut route = link::route_client()?;
        say!("ip link set {INSIDE} up");
        link::set_up(&mut route, INSIDE)?;
        let device = link::find(&mut route, INSIDE)?.context("the device has vanished")?;
        for net in bridge::networks(self.address, self.subnet, self.subnet6)? {
            say!("ip address add {net} dev {INSIDE}");
            address::add(&mut route, device.index, net)?;
        }
        let gateway = ipam::gateway(self.subnet);
        say!("ip route add default via {gateway}");
        route::add_default(&mut route, gateway)?;
        self.wait_until_usable(&mut route)
        // ANCHOR_END: exercise_connect
    }
    // ANCHOR_END: configure

    /// Waits until the device can send and receive. The kernel does two things
    /// with a delay: it tells the bridge that the inner end of the veth pair is
    /// up, and it makes a new IPv6 address local. Until then the container's
    /// first packet, a request for a neighbour's MAC address, or the answer to
    /// it, would be lost, and sent again a second later.
    fn wait_until_usable(&mut self, own: &mut Route) -> Result<()> {
        let ip6 = self.subnet6.map(|net| ipam::ipv6(net, self.address));
        let (host, host_end) = (&mut self.host, &self.host_end);
        wait_until_forwarding(host, host_end, INSIDE, &mut || {
            ip6.map_or(Ok(true), |ip| route::is_local(own, ip))
        })
    }
}

/// Waits until a port of a bridge forwards, and something else is so, too.
pub(crate) fn wait_until_forwarding(
    host: &mut Route,
    host_end: &str,
    inside: &str,
    also: &mut dyn FnMut() -> Result<bool>,
) -> Result<()> {
    for _ in 0..PATIENCE {
        let port = link::find(host, host_end)?;
        if also()? && port.context("its other end has vanished")?.forwarding {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("{inside} has no connection to its bridge after {PATIENCE} ms");
}

/// Reserves the ports. Looks for another container of ours on them first: its
/// port is bound too, but /proc does not list TCP sockets that do not listen.
///
/// Returns the ports, of which some are only known now, and their sockets.
pub(crate) fn reserve_ports(
    state: &State,
    wanted: &[Publish],
) -> Result<(Vec<Publish>, Vec<OwnedFd>)> {
    let members = state.containers.values();
    let taken: Vec<Publish> = members.flat_map(|member| member.ports.clone()).collect();
    let (chosen, mut sockets) = choose(wanted, &taken)?;
    for port in wanted.iter().filter(|port| !port.is_open()) {
        // ANCHOR: exercise_name_the_holder
        let other = state
            .containers
            .iter()
            .find(|(_, member)| member.ports.iter().any(|p| p.clashes_with(port)));
        if let Some((id, member)) = other {
            bail!(
                "-p {port}: port {}/{} of the host is taken by container {id} (launcher: process {}): \
                 choose another one",
                port.host_port,
                port.protocol,
                member.owner.pid
            );
        }
        // ANCHOR_END: exercise_name_the_holder
        sockets.push(reserve(port).with_context(|| format!("-p {port}"))?);
    }
    Ok((chosen, sockets))
}

/// Prevents a device from giving itself a link-local IPv6 address. A kernel
/// without IPv6 has no such file.
pub(crate) fn disable_ipv6(device: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    match fs::write(&path, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("write 1 to {path:?}"))
        }
        _ => Ok(()),
    }
}

//! A container's connections to user-defined bridges: at its start, and while
//! it runs.
//!
//! A start reserves all of them in `prepare`, as [`connection`](crate::connection)
//! does for the default bridge. [`connect`] and [`disconnect`] are for another
//! process than the launcher, which finds the container in the state by its
//! launcher's identity. Whatever they do is in the state first, so that the end
//! of the container removes it.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use kit::{ProcessIdentity, say, warn};
use nix::unistd::Pid;

use crate::bridge::network::Network;
use crate::bridge::user::{self, Joining, UserBridge};
use crate::connection::{disable_ipv6, reserve_ports, wait_until_forwarding};
use crate::kernel::link::{self, Route};
use crate::kernel::within::within;
use crate::kernel::{address, conntrack, route};
use crate::ledger::directory::directory;
use crate::ledger::reclaim;
use crate::ledger::rules::{of_container, published};
use crate::ledger::state::{self, Locked, Plug};
use crate::ledger::unused::remove_unused;
use crate::names::files;
use crate::nat::firewall;
use crate::nat::publish::Publish;
use crate::nat::table::{self, Netfilter, Transaction};
use crate::{VETH, explained};

/// The largest of a container's files that is changed, in bytes.
const LARGEST: u64 = 1 << 20;

/// A running container, as the state has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Its address on the default bridge.
    pub default: Option<Ipv4Addr>,
    /// Its addresses on user-defined bridges, by the devices' names.
    pub addresses: std::collections::BTreeMap<String, Ipv4Addr>,
    /// Its published ports: none of them is open.
    pub ports: Vec<Publish>,
}

/// The connections of a container that is being started.
#[derive(Debug)]
pub(crate) struct Plugs {
    /// A socket of the host's network namespace.
    host: Route,
    plugs: Vec<(UserBridge, Plug)>,
    /// The interface indices of the bridges.
    bridges: Vec<u32>,
    /// Whether there is another way out.
    has_default: bool,
    /// The sockets that keep its host ports from other programs.
    _ports: Vec<OwnedFd>,
}

impl Plugs {
    /// Reserves addresses, records what is going to be made, and makes all of it
    /// that does not need the container. The container is in the state already;
    /// if it is not on the default bridge, `publish` are its ports.
    pub(crate) fn prepare(
        locked: &mut Locked,
        id: &str,
        joining: &[Joining],
        publish: &[Publish],
    ) -> Result<Self> {
        let mut route = link::route_client()?;
        link::check_privilege(&mut route)?;
        state::check_place(&mut locked.state)?;
        reclaim::sweep(locked)?;
        let mut netfilter = table::netfilter_client()?;
        let member = locked.state.containers.get(id);
        let has_default = member
            .context("the container is not in the state")?
            .address
            .is_some();
        let mut plugs = Vec::new();
        for one in joining {
            let bridge = &one.bridge;
            bridge.check()?;
            let taken = locked.state.addresses_on(&bridge.device);
            let plug = Plug {
                address: bridge.allocate(&taken, one.ip)?,
                host_end: host_end()?,
                inside: format!("eth{}", plugs.len() + usize::from(has_default)),
            };
            plugs.push((bridge.clone(), plug));
        }
        let (chosen, ports) = match has_default {
            true => (Vec::new(), Vec::new()),
            false => reserve_ports(&locked.state, publish)?,
        };
        let others = published(&locked.state);
        let network = match locked.state.network.clone() {
            Some(network) => network,
            None => Network::plan(&mut route, None)?,
        };
        let bridges = joining.iter().map(|one| &one.bridge);
        let known = note_bridges(locked, network.clone(), bridges);
        if let Some(member) = locked.state.containers.get_mut(id) {
            for (bridge, plug) in &plugs {
                member.plugs.insert(bridge.device.clone(), plug.clone());
            }
            if !has_default {
                member.ports = chosen;
            }
        }
        locked.save()?;

        let rules = (locked.state.bridges.clone(), others);
        network.up(&mut route, &mut netfilter, rules)?;
        let mut indices = Vec::new();
        for (bridge, _) in &plugs {
            indices.push(user::up(&mut route, bridge)?);
        }
        finish_rules(locked, &mut netfilter, &network, id, known)?;
        for (bridge, _) in plugs.iter().filter(|(bridge, _)| !bridge.internal) {
            for obstacle in firewall::obstacles(&mut netfilter, &bridge.device)? {
                warn!("net: {}", obstacle.warning(&bridge.device));
            }
        }
        Ok(Plugs {
            host: route,
            plugs,
            bridges: indices,
            has_default,
            _ports: ports,
        })
    }

    /// The container's first address.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.plugs.first().map(|(_, plug)| plug.address)
    }

    /// Connects the network namespace of the process `child` to the bridges.
    pub(crate) fn plug_in(&mut self, child: Pid) -> Result<()> {
        for ((bridge, plug), index) in self.plugs.iter().zip(&self.bridges) {
            plug_in(&mut self.host, bridge, plug, *index, child)?;
        }
        Ok(())
    }

    /// The socket in the host's network namespace, see
    /// [`Connection::keeps`](crate::connection::Connection::keeps).
    pub(crate) fn keeps(&self) -> BorrowedFd<'_> {
        self.host.as_fd()
    }

    /// In the container: gives the devices their addresses, and the container
    /// its default route.
    pub(crate) fn configure(&mut self) -> Result<()> {
        let mut own = link::route_client()?;
        let mut has_default = self.has_default;
        for (bridge, plug) in &self.plugs {
            configure(&mut own, bridge, plug)?;
            if !has_default && !bridge.internal {
                lead_out(&mut own, bridge)?;
                has_default = true;
            }
            let (host_end, inside) = (&plug.host_end, &plug.inside);
            wait_until_forwarding(&mut self.host, host_end, inside, &mut || Ok(true))?;
        }
        Ok(())
    }
}

/// The name of a veth pair's host end: at random, and in the state before the
/// device is made.
fn host_end() -> Result<String> {
    Ok(format!("{VETH}x{}", kit::random::hex::<5>()?))
}

/// Notes the bridges in the state. Returns whether it had all of them.
fn note_bridges<'a>(
    locked: &mut Locked,
    network: Network,
    bridges: impl Iterator<Item = &'a UserBridge>,
) -> bool {
    locked.state.network = Some(network);
    let mut known = true;
    for bridge in bridges {
        let before = locked
            .state
            .bridges
            .insert(bridge.device.clone(), bridge.clone());
        known &= before.as_ref() == Some(bridge);
    }
    known
}

/// Adds the rules of the container's ports. If a bridge is new, the whole table
/// is made anew.
fn finish_rules(
    locked: &Locked,
    netfilter: &mut Netfilter,
    network: &Network,
    id: &str,
    known: bool,
) -> Result<()> {
    let state = &locked.state;
    if !known {
        network.install(netfilter, &state.bridges, published(state))?;
    }
    let Some(member) = state.containers.get(id) else {
        return Ok(());
    };
    // On the default bridge, its rules are made with that connection.
    if known
        && member.address.is_none()
        && let Some(address) = member.leads_to(&state.bridges)
    {
        let mut transaction = Transaction::new();
        for rule in of_container(id, address, &member.ports) {
            transaction = transaction.rule(rule);
        }
        transaction.commit(netfilter)?;
    }
    conntrack::forget(netfilter, &member.ports)
}

fn plug_in(
    host: &mut Route,
    bridge: &UserBridge,
    plug: &Plug,
    index: u32,
    child: Pid,
) -> Result<()> {
    let (device, mac) = (&bridge.device, address::mac(plug.address));
    let Plug {
        host_end, inside, ..
    } = plug;
    say!("ip link add {host_end} master {device} up type veth peer {inside} netns {child}");
    link::add_veth(host, host_end, index, child, inside, mac)?;
    link::set_hairpin(host, host_end)
}

/// In the container: gives a device its address.
fn configure(own: &mut Route, bridge: &UserBridge, plug: &Plug) -> Result<()> {
    let inside = &plug.inside;
    disable_ipv6(inside)?;
    say!("ip link set {inside} up");
    link::set_up(own, inside)?;
    let device = link::find(own, inside)?.with_context(|| format!("{inside} has vanished"))?;
    let net = bridge.with_prefix(plug.address)?;
    say!("ip address add {net} dev {inside}");
    address::add(own, device.index, net)
}

fn lead_out(own: &mut Route, bridge: &UserBridge) -> Result<()> {
    say!("ip route add default via {}", bridge.gateway);
    route::add_default(own, bridge.gateway)
}

/// The id of the container that `launcher` has started.
fn id_of(locked: &Locked, launcher: ProcessIdentity) -> Option<String> {
    let mut members = locked.state.containers.iter();
    let found = members.find(|(_, member)| member.owner == launcher);
    found.map(|(id, _)| id.clone())
}

/// Connects a running container to a bridge, and returns its address there.
/// `child` is its first process.
///
/// # Errors
/// The container is on it already, or is not in the state; no address is free.
pub fn connect(launcher: ProcessIdentity, child: Pid, joining: &Joining) -> Result<Ipv4Addr> {
    let bridge = &joining.bridge;
    bridge.check()?;
    let mut locked = Locked::open(&directory())?;
    let mut host = link::route_client()?;
    link::check_privilege(&mut host).map_err(explained)?;
    state::check_place(&mut locked.state)?;
    let id = id_of(&locked, launcher).context("the container has ended")?;
    let member = &locked.state.containers[&id];
    if member.plugs.contains_key(&bridge.device) {
        bail!("it is connected to {} already", bridge.device);
    }
    let taken = locked.state.addresses_on(&bridge.device);
    let own = member.plugs.values().map(|plug| plug.inside.as_str());
    let own: Vec<&str> = own.chain(member.address.map(|_| "eth0")).collect();
    let free = (0..).map(|n| format!("eth{n}"));
    let inside = free.into_iter().find(|name| !own.contains(&name.as_str()));
    let plug = Plug {
        address: bridge.allocate(&taken, joining.ip)?,
        host_end: host_end()?,
        inside: inside.unwrap_or_default(),
    };
    let mut netfilter = table::netfilter_client()?;
    let network = match locked.state.network.clone() {
        Some(network) => network,
        None => Network::plan(&mut host, None)?,
    };
    let others = published(&locked.state);
    let known = note_bridges(&mut locked, network.clone(), [bridge].into_iter());
    if let Some(member) = locked.state.containers.get_mut(&id) {
        member.plugs.insert(bridge.device.clone(), plug.clone());
    }
    locked.save()?;
    let mut make = || {
        network.up(
            &mut host,
            &mut netfilter,
            (locked.state.bridges.clone(), others.clone()),
        )?;
        let index = user::up(&mut host, bridge)?;
        if !known {
            let rules = published(&locked.state);
            network.install(&mut netfilter, &locked.state.bridges, rules)?;
        }
        plug_in(&mut host, bridge, &plug, index, child)?;
        within(child, &mut || {
            let mut own = link::route_client()?;
            configure(&mut own, bridge, &plug)?;
            if !bridge.internal && !route::has_default(&mut own)? {
                lead_out(&mut own, bridge)?;
            }
            Ok(Vec::new())
        })?;
        wait_until_forwarding(&mut host, &plug.host_end, &plug.inside, &mut || Ok(true))
    };
    match make() {
        Ok(()) => Ok(plug.address),
        Err(error) => match unplug(&mut locked, &id, &bridge.device) {
            Ok(_) => Err(error),
            Err(more) => Err(error.context(format!("and what was made stays: {more:#}"))),
        },
    }
}

/// Disconnects a running container from a bridge, if it is on it. If its default
/// route led there, it leads to another one from now on.
pub fn disconnect(launcher: ProcessIdentity, child: Pid, device: &str) -> Result<()> {
    let mut locked = Locked::open(&directory())?;
    state::check_place(&mut locked.state)?;
    let Some(id) = id_of(&locked, launcher) else {
        return locked.close();
    };
    let left = unplug(&mut locked, &id, device)?;
    let member = &locked.state.containers[&id];
    let network = locked.state.network.as_ref();
    let default = member.address.and(network).map(|network| network.subnet);
    let other = left.into_iter().find(|bridge| !bridge.internal);
    let gateway = default
        .map(crate::bridge::ipam::gateway)
        .or(other.map(|bridge| bridge.gateway));
    if let Some(gateway) = gateway {
        within(child, &mut || {
            let mut own = link::route_client()?;
            if !route::has_default(&mut own)? {
                route::add_default(&mut own, gateway)?;
            }
            Ok(Vec::new())
        })?;
    }
    Ok(())
}

/// Removes the connection of a container to a bridge, and returns the bridges on
/// which it still is.
fn unplug(locked: &mut Locked, id: &str, device: &str) -> Result<Vec<UserBridge>> {
    let plug = locked.state.containers.get(id);
    let plug = plug.and_then(|member| member.plugs.get(device));
    let Some(plug) = plug.cloned() else {
        return Ok(Vec::new());
    };
    let mut route = link::route_client()?;
    say!("ip link del {}", plug.host_end);
    link::delete(&mut route, &plug.host_end)?;
    let Some(member) = locked.state.containers.get_mut(id) else {
        return Ok(Vec::new());
    };
    member.plugs.remove(device);
    let (ports, kept) = (member.ports.clone(), member.plugs.clone());
    // Its ports lead to another address now, or nowhere.
    if !ports.is_empty()
        && let Some(network) = locked.state.network.clone()
    {
        let mut netfilter = table::netfilter_client()?;
        let rules = published(&locked.state);
        network.install(&mut netfilter, &locked.state.bridges, rules)?;
        conntrack::forget(&mut netfilter, &ports)?;
    }
    let bridges = &locked.state.bridges;
    let left = kept.keys().filter_map(|name| bridges.get(name).cloned());
    let left = left.collect();
    remove_unused(locked)?;
    locked.save()?;
    Ok(left)
}

/// The addresses and ports of the container that `launcher` has started; `None`
/// if it has none.
pub fn look(launcher: ProcessIdentity) -> Result<Option<Connected>> {
    let locked = Locked::open(&directory())?;
    let found = id_of(&locked, launcher).and_then(|id| {
        let member = locked.state.containers.get(&id)?;
        let addresses = member.plugs.iter();
        Some(Connected {
            default: member.address,
            addresses: addresses
                .map(|(name, plug)| (name.clone(), plug.address))
                .collect(),
            ports: member.ports.clone(),
        })
    });
    // Reading must not leave a new directory behind.
    locked.close()?;
    Ok(found)
}

/// Whether a container that runs is on this bridge. The containers of killed
/// launchers are removed first.
pub fn is_used(device: &str) -> Result<bool> {
    let mut locked = Locked::open(&directory())?;
    reclaim::sweep(&mut locked)?;
    let mut members = locked.state.containers.values();
    let used = members.any(|member| member.plugs.contains_key(device));
    locked.close()?;
    Ok(used)
}

/// The MAC address that a container with this address has, as text.
pub fn mac(address: Ipv4Addr) -> String {
    address::mac(address)
        .map(|byte| format!("{byte:02x}"))
        .join(":")
}

/// The subnet of the default bridge, while there is one.
pub fn default_subnet() -> Result<Option<ipnet::Ipv4Net>> {
    let locked = Locked::open(&directory())?;
    let subnet = locked.state.network.as_ref().map(|network| network.subnet);
    locked.close()?;
    Ok(subnet)
}

/// Replaces the content of one of the files of a running container: `hosts` or
/// `resolv.conf`. They are mounted, so they stay the same files.
///
/// # Errors
/// If the container has made something else of the file than a short text.
pub fn rewrite(
    launcher: ProcessIdentity,
    name: &str,
    change: &mut dyn FnMut(&str) -> String,
) -> Result<()> {
    let locked = Locked::open(&directory())?;
    let Some(id) = id_of(&locked, launcher) else {
        return locked.close();
    };
    let path = locked.files_of(&id).join(name);
    let file = File::open(&path).with_context(|| format!("open {path:?}"))?;
    // The container's root may have written anything into it.
    let mut before = String::new();
    let read = file.take(LARGEST + 1).read_to_string(&mut before);
    read.with_context(|| format!("read {path:?}"))?;
    if before.len() as u64 > LARGEST {
        bail!("{path:?} has more than {LARGEST} bytes: it is left as it is");
    }
    files::write(&path, &change(&before))
}

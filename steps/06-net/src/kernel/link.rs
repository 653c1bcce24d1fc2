//! Network devices: a bridge, veth pairs, and the loopback device of a new
//! namespace (rtnetlink(7), veth(4)).
//!
//! Each function is one message to the kernel. The command of iproute2 that
//! would send it is in its doc comment.

use anyhow::{Context, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::kernel::netlink::{Client, unless};

/// A connection to the kernel's links, addresses and routes, for the network
/// namespace in which it was opened.
pub(crate) type Route = Client<RouteNetlinkMessage>;

/// A MAC address.
pub(crate) type Mac = [u8; 6];

/// Opens a connection for the caller's network namespace.
pub(crate) fn route_client() -> Result<Route> {
    Client::new(NETLINK_ROUTE)
}

/// The attributes of a device that are used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The interface index, by which addresses and routes refer to it.
    pub index: u32,
    /// Its name: 15 bytes at most (`IFNAMSIZ`).
    pub name: String,
    /// The alias, 255 bytes at most, which `ip link` shows.
    pub alias: Option<String>,
    /// The index of the bridge to which it is attached.
    pub master: Option<u32>,
    /// The device is a port of a bridge, in the state `forwarding`.
    pub forwarding: bool,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            alias: None,
            master: None,
            forwarding: false,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(info) => link.forwarding = info.iter().any(forwards),
                _ => {}
            }
        }
        link
    }
}

fn forwards(info: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(port)) = info else {
        return false;
    };
    port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
}

/// Finds the device of this name: `ip link show NAME`. `None` if there is none.
pub(crate) fn find(route: &mut Route, name: &str) -> Result<Option<Link>> {
    let request = RouteNetlinkMessage::GetLink(named(name));
    match route
        .get(request)
        .with_context(|| format!("RTM_GETLINK({name})"))?
    {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link.into())),
        _ => Ok(None),
    }
}

/// Lists all devices: `ip link show`.
pub(crate) fn list(route: &mut Route) -> Result<Vec<Link>> {
    let replies = route
        .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
        .context("RTM_GETLINK(all)")?;
    Ok(replies
        .into_iter()
        .filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => Some(link.into()),
            _ => None,
        })
        .collect())
}

/// Creates a bridge with a fixed MAC address and sets it up:
/// `ip link add NAME address MAC up type bridge`.
///
/// Without a fixed address a bridge takes the lowest of its ports' addresses.
/// That changes as containers come and go, and the other containers would keep
/// sending to the old one.
///
/// # Errors
/// `EEXIST` if the name is taken; `EPERM` without `CAP_NET_ADMIN`; `EOPNOTSUPP`
/// if the kernel has no bridges.
pub(crate) fn add_bridge(route: &mut Route, name: &str, mac: Mac) -> Result<()> {
    let mut link = named(name);
    set_up_flag(&mut link);
    link.attributes.extend([
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ]);
    add(route, link).with_context(|| format!("RTM_NEWLINK({name}, bridge)"))
}

// ANCHOR: add_veth
/// Creates a veth pair, two devices connected like the ends of a cable.
/// `host_end` is a port of the bridge `master`, and up; the other end is in the
/// network namespace of the process `pid`, with the given name and MAC address,
/// and down.
///
/// One message does the work of four commands:
/// `ip link add HOST_END type veth peer name X`, `ip link set X netns PID`,
/// `ip -n … link set X name PEER`, `ip link set HOST_END master BRIDGE up`. So
/// the inner end never appears on the host, where its name may be taken, and a
/// failure leaves nothing behind.
///
/// # Errors
/// `EEXIST` if a name is taken; `ESRCH` if the process has ended; `EXFULL` if
/// the bridge has its maximum of 1023 ports.
pub(crate) fn add_veth(
    route: &mut Route,
    host_end: &str,
    master: u32,
    pid: Pid,
    peer: &str,
    mac: Mac,
) -> Result<()> {
    // ANCHOR: exercise_connect
    let mut inner = named(peer);
    inner.attributes.extend([
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::NetNsPid(pid.as_raw() as u32),
    ]);
    let mut link = named(host_end);
    set_up_flag(&mut link);
    link.attributes.extend([
        LinkAttribute::Controller(master),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
        ]),
    ]);
    add(route, link)
        .with_context(|| format!("RTM_NEWLINK({host_end}, veth, peer {peer} of process {pid})"))
    // ANCHOR_END: exercise_connect
}
// ANCHOR_END: add_veth

/// Lets a port of a bridge send packets back to where they come from:
/// `ip link set NAME type bridge_slave hairpin on`.
///
/// By default a bridge does not, and need not: a packet from a container to a
/// port of the host that leads to the same container is sent back by the host.
/// But if the module `br_netfilter` is loaded, as it is with Docker and
/// Kubernetes, the bridge itself rewrites the destination, and the packet must
/// leave by the port by which it came in.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn set_hairpin(route: &mut Route, name: &str) -> Result<()> {
    let mut link = named(name);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
            true,
        )])),
    ]));
    route
        .request(RouteNetlinkMessage::NewLink(link), 0)
        .with_context(|| format!("RTM_NEWLINK({name}, hairpin)"))
}

/// Sets a device up: `ip link set NAME up`.
///
/// # Errors
/// `ENODEV` for an unknown device; `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn set_up(route: &mut Route, name: &str) -> Result<()> {
    let mut link = named(name);
    set_up_flag(&mut link);
    route
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .with_context(|| format!("RTM_SETLINK({name}, up)"))
}

/// Moves a device into the network namespace of the process `pid`, under the
/// name `inside`: `ip link set DEVICE netns PID name INSIDE`. It is down then,
/// and without addresses.
///
/// # Errors
/// `EEXIST` if the name is taken there; `EINVAL` for a device that cannot leave
/// its namespace; `ESRCH` if the process has ended.
pub(crate) fn move_to(route: &mut Route, index: u32, pid: Pid, inside: &str) -> Result<()> {
    let mut link = named(inside);
    link.header.index = index;
    link.attributes
        .push(LinkAttribute::NetNsPid(pid.as_raw() as u32));
    route
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .with_context(|| format!("RTM_SETLINK(netns of process {pid}, name {inside})"))
}

/// Sets the alias of a device: `ip link set NAME alias ALIAS`.
///
/// # Errors
/// `ENODEV` for an unknown device; `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn set_alias(route: &mut Route, name: &str, alias: &str) -> Result<()> {
    let mut link = named(name);
    link.attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    route
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .with_context(|| format!("RTM_SETLINK({name}, alias {alias})"))
}

/// Deletes a device, and with one end of a veth pair the other:
/// `ip link del NAME`. A missing device counts as deleted, even for a caller
/// without privilege.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; `EOPNOTSUPP` for a device that cannot be
/// deleted.
pub(crate) fn delete(route: &mut Route, name: &str) -> Result<()> {
    if find(route, name)?.is_none() {
        return Ok(());
    }
    let done = route.request(RouteNetlinkMessage::DelLink(named(name)), 0);
    unless(Errno::ENODEV, done).with_context(|| format!("RTM_DELLINK({name})"))
}

/// Checks that the caller may change this network, by a request that changes
/// nothing: the kernel checks the privilege first.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the user namespace that owns the network
/// namespace.
pub(crate) fn check_privilege(route: &mut Route) -> Result<()> {
    route
        .request(RouteNetlinkMessage::SetLink(named("lo")), 0)
        .context("RTM_SETLINK(lo)")
}

fn add(route: &mut Route, link: LinkMessage) -> Result<()> {
    route.request(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn set_up_flag(link: &mut LinkMessage) {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
}

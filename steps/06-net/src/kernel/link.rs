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

/// A connection to the part of the kernel that has links, addresses and
/// routes, for the network namespace in which it was opened.
pub(crate) type Route = Client<RouteNetlinkMessage>;

/// A MAC address.
pub(crate) type Mac = [u8; 6];

/// Opens a connection for the caller's network namespace.
///
/// # Errors
/// Those of [`Client::new`].
pub(crate) fn route_client() -> Result<Route> {
    Client::new(NETLINK_ROUTE)
}

/// A device as the kernel describes it, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The number by which addresses and routes refer to it.
    pub index: u32,
    /// Its name: 15 bytes at most (`IFNAMSIZ`).
    pub name: String,
    /// A remark, 255 bytes at most: `ip link` shows it as `alias`.
    pub alias: Option<String>,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// It is a port of a bridge, and the bridge passes on what comes in by it.
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

/// The device of this name, `None` where there is none: `ip link show NAME`.
///
/// # Errors
/// Those of `RTM_GETLINK`.
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

/// All devices: `ip link show`.
///
/// # Errors
/// Those of `RTM_GETLINK`.
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

/// Makes a bridge with a MAC address of its own and sets it up:
/// `ip link add NAME address MAC up type bridge`.
///
/// The address matters: without one a bridge takes the lowest among its
/// ports', which changes as containers come and go, and the other containers
/// go on sending to the old one.
///
/// # Errors
/// `EEXIST`, `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` where the kernel
/// has no bridges.
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
/// Makes a veth pair, a cable with two ends: one of them, `host_end`, is a port
/// of the bridge `master` and up; the other is in the network namespace of the
/// process `pid`, with the name and the MAC address given, and down.
///
/// One message does what takes four commands: `ip link add HOST_END type veth
/// peer name X`, `ip link set X netns PID`, `ip -n … link set X name PEER`,
/// `ip link set HOST_END master BRIDGE up`. So the inner end never appears on
/// the host, where its name may be taken, and there is no half of it to clean
/// up after.
///
/// # Errors
/// `EEXIST`; `ESRCH` where the process is gone; `EXFULL` where the bridge has
/// its 1023 ports.
pub(crate) fn add_veth(
    route: &mut Route,
    host_end: &str,
    master: u32,
    pid: Pid,
    peer: &str,
    mac: Mac,
) -> Result<()> {
    // ANCHOR: exercise_veth
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
    // ANCHOR_END: exercise_veth
}
// ANCHOR_END: add_veth

/// Lets a port of a bridge send packets back to where they come from:
/// `ip link set NAME type bridge_slave hairpin on`.
///
/// A bridge does not do that, and need not: for a packet from a container to a
/// port of the host that leads to the same container, the host is the one who
/// sends it back. But where the module `br_netfilter` is loaded, as Docker and
/// Kubernetes have it, the bridge itself rewrites the destination, and then the
/// packet would have to leave by the port by which it came in.
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
/// `ENODEV`, `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn set_up(route: &mut Route, name: &str) -> Result<()> {
    let mut link = named(name);
    set_up_flag(&mut link);
    route
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .with_context(|| format!("RTM_SETLINK({name}, up)"))
}

/// Attaches a remark to a device: `ip link set NAME alias ALIAS`.
///
/// # Errors
/// `ENODEV`, `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn set_alias(route: &mut Route, name: &str, alias: &str) -> Result<()> {
    let mut link = named(name);
    link.attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    route
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .with_context(|| format!("RTM_SETLINK({name}, alias {alias})"))
}

/// Removes a device, and with one end of a veth pair the other:
/// `ip link del NAME`. That there is none is as good, also for a caller without
/// privilege.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` for a device that is not of
/// the kind one can remove.
pub(crate) fn delete(route: &mut Route, name: &str) -> Result<()> {
    if find(route, name)?.is_none() {
        return Ok(());
    }
    let done = route.request(RouteNetlinkMessage::DelLink(named(name)), 0);
    unless(Errno::ENODEV, done).with_context(|| format!("RTM_DELLINK({name})"))
}

/// Goes on if the caller may change this network. Found out by a request that
/// changes nothing: the kernel asks for the right first.
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

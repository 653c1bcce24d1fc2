//! The few requests of rtnetlink(7) with which a check lays cables. The harness
//! has its own code for them: the code under test must not be its own judge.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nametoindex;

/// `ip link set NAME up`, in the network namespace of the thread.
pub fn set_up(name: &str) -> Result<()> {
    let mut link = named(name);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(link), 0).with_context(|| format!("ip link set {name} up"))
}

/// `ip link add NAME type veth peer PEER netns PID`.
pub fn add_veth(name: &str, peer: &str, pid: i32) -> Result<()> {
    let mut inner = named(peer);
    inner
        .attributes
        .push(LinkAttribute::NetNsPid(pid.cast_unsigned()));
    let mut link = named(name);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
    ]));
    request(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .with_context(|| format!("ip link add {name} type veth"))
}

/// `ip link add NAME type bridge`.
pub fn add_bridge(name: &str) -> Result<()> {
    let mut link = named(name);
    let kind = LinkInfo::Kind(InfoKind::Bridge);
    link.attributes.push(LinkAttribute::LinkInfo(vec![kind]));
    request(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .with_context(|| format!("ip link add {name} type bridge"))
}

/// `ip address add IP/PREFIX dev NAME`.
pub fn add_address(name: &str, ip: Ipv4Addr, prefix: u8) -> Result<()> {
    let message = RouteNetlinkMessage::NewAddress(address(name, ip, prefix)?);
    request(message, NLM_F_CREATE | NLM_F_EXCL)
        .with_context(|| format!("ip address add {ip}/{prefix} dev {name}"))
}

/// `ip address del IP/PREFIX dev NAME`.
pub fn delete_address(name: &str, ip: Ipv4Addr, prefix: u8) -> Result<()> {
    let message = RouteNetlinkMessage::DelAddress(address(name, ip, prefix)?);
    request(message, 0).with_context(|| format!("ip address del {ip}/{prefix} dev {name}"))
}

/// `ip route add IP via GATEWAY`; without an IP the default route.
pub fn add_route(to: Option<Ipv4Addr>, gateway: Ipv4Addr) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    if let Some(ip) = to {
        message.header.destination_prefix_length = 32;
        let to = RouteAttribute::Destination(RouteAddress::Inet(ip));
        message.attributes.push(to);
    }
    let via = RouteAttribute::Gateway(RouteAddress::Inet(gateway));
    message.attributes.push(via);
    request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .with_context(|| format!("ip route add {to:?} via {gateway}"))
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn address(name: &str, ip: Ipv4Addr, prefix: u8) -> Result<AddressMessage> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index =
        if_nametoindex(name).with_context(|| format!("if_nametoindex({name})"))?;
    let ip = IpAddr::V4(ip);
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    Ok(message)
}

/// Sends a request and waits for the kernel's acknowledgement.
fn request(message: RouteNetlinkMessage, flags: u16) -> Result<()> {
    let socket = Socket::new(NETLINK_ROUTE).context("socket(NETLINK_ROUTE)")?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags | NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket
        .send_to(&bytes, &SocketAddr::new(0, 0), 0)
        .context("sendto(NETLINK_ROUTE)")?;
    let (answer, _) = socket.recv_from_full().context("recvfrom(NETLINK_ROUTE)")?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| anyhow::anyhow!("an answer of rtnetlink: {error}"))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io().into()),
        _ => Ok(()),
    }
}

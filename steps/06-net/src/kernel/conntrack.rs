//! The host's connection tracking (nf_conntrack).
//!
//! The kernel consults `nat` rules for the first packet of a connection only;
//! the others follow it. For UDP a "connection" is a pair of addresses and
//! ports, remembered for half a minute after the last packet, or for up to two
//! minutes once both sides have sent. So a client that keeps sending would be
//! directed to a container that has ended, or, if it began too early, to none
//! at all.

use anyhow::{Context, Result};
use kit::errno::errno_of;
use kit::say;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use nix::errno::Errno;

use crate::kernel::netlink::unless;
use crate::nat::protocol;
use crate::nat::publish::Publish;
use crate::nat::table::{Netfilter, message};

/// Deletes the tracked UDP connections to these published ports. TCP does not
/// need this: a new connection begins with a SYN and is tracked anew.
///
/// On a kernel that cannot delete them (no module `nf_conntrack_netlink`) they
/// expire after `nf_conntrack_udp_timeout`, 30 seconds, or
/// `nf_conntrack_udp_timeout_stream`, 120 seconds, without a packet.
pub(crate) fn forget(netfilter: &mut Netfilter, ports: &[Publish]) -> Result<()> {
    let is_ours = |port| {
        ports
            .iter()
            .any(|p| p.protocol == protocol::Protocol::Udp && p.host_port == port)
    };
    if !ports.iter().any(|port| is_ours(port.host_port)) {
        return Ok(());
    }
    let all = message(NetfilterProtoFamily::IPv4, ConntrackMessage::Get(vec![]));
    let connections = match netfilter.dump(all) {
        Err(error) if matches!(errno_of(&error), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
            say!("this kernel cannot forget connections: {error:#}");
            return Ok(());
        }
        connections => connections.context("IPCTNL_MSG_CT_GET")?,
    };
    for tuple in connections.into_iter().filter_map(original) {
        if !udp_port(&tuple).is_some_and(is_ours) {
            continue;
        }
        let attributes = vec![ConntrackAttribute::CtaTupleOrig(tuple)];
        let request = message(
            NetfilterProtoFamily::IPv4,
            ConntrackMessage::Delete(attributes),
        );
        // The connection may have expired meanwhile.
        unless(Errno::ENOENT, netfilter.request(request, 0)).context("IPCTNL_MSG_CT_DELETE")?;
    }
    Ok(())
}

/// The addresses and ports of a connection's first packet.
fn original(message: NetfilterMessage) -> Option<Vec<Tuple>> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        return None;
    };
    attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
            _ => None,
        })
}

/// The destination port of a UDP connection.
fn udp_port(tuple: &[Tuple]) -> Option<u16> {
    let proto = tuple.iter().find_map(|part| match part {
        Tuple::Proto(proto) => Some(proto),
        _ => None,
    })?;
    let udp = proto.contains(&ProtoTuple::Protocol(Protocol::Udp));
    proto.iter().find_map(|part| match part {
        ProtoTuple::DestinationPort(port) if udp => Some(*port),
        _ => None,
    })
}

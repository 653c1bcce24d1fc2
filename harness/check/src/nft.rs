//! Lists the nftables tables: netlink(7), `NFT_MSG_GETTABLE` of
//! `linux/netfilter/nf_tables.h`.

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context, Result, anyhow, bail};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;

/// Attempts at a listing, which starts again when the tables change meanwhile.
const ATTEMPTS: usize = 10;

/// The tables of the caller's network namespace, as `family name`.
///
/// Empty on a kernel without nf_tables, and for a caller without
/// `CAP_NET_ADMIN`, who cannot change any either.
///
/// # Errors
/// Any other error of the kernel: half a listing would pass for a whole one.
pub fn tables() -> Result<BTreeSet<String>> {
    let socket = match Socket::new(NETLINK_NETFILTER) {
        Err(error) if is(&error, Errno::EPROTONOSUPPORT) => return Ok(BTreeSet::new()),
        other => other.context("socket(AF_NETLINK, NETLINK_NETFILTER)")?,
    };
    for _ in 0..ATTEMPTS {
        if let Some(tables) = list(&socket).context("NFT_MSG_GETTABLE")? {
            return Ok(tables);
        }
    }
    bail!("NFT_MSG_GETTABLE: the tables change faster than they can be listed")
}

/// One listing; `None` if the tables changed meanwhile.
fn list(socket: &Socket) -> Result<Option<BTreeSet<String>>> {
    let inner = NfTablesMessage::GetTable(TableMessage {
        attributes: Vec::new(),
    });
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let mut request = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket
        .send_to(&bytes, &SocketAddr::new(0, 0), 0)
        .context("sendto")?;

    let (mut tables, mut whole) = (BTreeSet::new(), true);
    loop {
        let (answer, _) = socket.recv_from_full().context("recvfrom")?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|error| anyhow!("an answer that cannot be read: {error}"))?;
            whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(whole.then_some(tables)),
                NetlinkPayload::Error(error) => {
                    let error = error.to_io();
                    // nfnetlink's error for a missing subsystem.
                    let without = [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EPERM];
                    return match without.into_iter().any(|errno| is(&error, errno)) {
                        true => Ok(Some(BTreeSet::new())),
                        false => Err(error.into()),
                    };
                }
                NetlinkPayload::InnerMessage(message) => tables.extend(name(&message)),
                _ => {}
            }
        }
    }
}

/// A table as `family name`.
fn name(message: &NetfilterMessage) -> Option<String> {
    let family = match message.header.family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::ARP => "arp",
        NetfilterProtoFamily::Bridge => "bridge",
        NetfilterProtoFamily::NetDev => "netdev",
        _ => "other",
    };
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &message.inner else {
        return None;
    };
    table
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TableAttribute::Name(name) => Some(format!("{family} {name}")),
            _ => None,
        })
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

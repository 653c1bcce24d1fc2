//! The names of the nftables tables, asked of the kernel: netlink(7),
//! `NFT_MSG_GETTABLE` of `linux/netfilter/nf_tables.h`.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const NFT_MSG_GETTABLE: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;

/// The tables of the caller's network namespace, as `family name`; empty on a
/// kernel without nf_tables, and for a caller without `CAP_NET_ADMIN`.
///
/// # Errors
/// Those of the netlink socket.
pub fn tables() -> Result<BTreeSet<String>> {
    let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | NFT_MSG_GETTABLE;
    let fd = match socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    ) {
        Err(Errno::EPROTONOSUPPORT) => return Ok(BTreeSet::new()),
        other => other.context("socket(AF_NETLINK, NETLINK_NETFILTER)")?,
    };
    // nlmsghdr (length, type, flags, sequence number, port), then nfgenmsg
    // (family, version, resource).
    let mut request = Vec::new();
    request.extend_from_slice(&20u32.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend_from_slice(&1u32.to_ne_bytes());
    request.extend_from_slice(&0u32.to_ne_bytes());
    request.extend_from_slice(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
    sendto(
        fd.as_raw_fd(),
        &request,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )
    .context("sendto(NFT_MSG_GETTABLE)")?;
    let mut tables = BTreeSet::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length =
            recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("recv(netlink)")?;
        let mut messages = &buffer[..length];
        while messages.len() >= 16 {
            let size = u32_at(messages, 0) as usize;
            let message_kind = u16_at(messages, 4);
            if size < 16 || size > messages.len() {
                return Ok(tables);
            }
            // The end of the dump, or an error: no nf_tables, no privilege.
            if message_kind == libc::NLMSG_DONE as u16 || message_kind == libc::NLMSG_ERROR as u16 {
                return Ok(tables);
            }
            if let Some(name) = table_name(&messages[16..size]) {
                tables.insert(name);
            }
            messages = &messages[size.next_multiple_of(4).min(messages.len())..];
        }
    }
}

/// `family name` from nfgenmsg and the attributes behind it.
fn table_name(body: &[u8]) -> Option<String> {
    let family = match i32::from(*body.first()?) {
        libc::AF_INET => "ip",
        libc::AF_INET6 => "ip6",
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_BRIDGE => "bridge",
        libc::NFPROTO_ARP => "arp",
        libc::NFPROTO_NETDEV => "netdev",
        _ => "other",
    };
    let mut attributes = body.get(4..)?;
    while attributes.len() >= 4 {
        let (length, kind) = (u16_at(attributes, 0) as usize, u16_at(attributes, 2));
        if kind == NFTA_TABLE_NAME {
            let name = attributes.get(4..length)?.split(|b| *b == 0).next()?;
            return Some(format!("{family} {}", String::from_utf8_lossy(name)));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

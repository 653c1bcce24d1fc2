//! Addresses of devices (rtnetlink(7), `RTM_NEWADDR`), and MAC addresses
//! derived from them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::kernel::link::{Mac, Route};
use crate::kernel::netlink::unless;

/// Adds an address to a device, and with it the route to the network of its
/// prefix: `ip address add ADDRESS/PREFIX dev NAME`. An address that the device
/// already has counts as added.
///
/// For IPv6 duplicate address detection is off (`IFA_F_NODAD`): it would delay
/// the use of the address by a second, and the addresses are distinct because
/// one allocator assigns them.
///
/// # Errors
/// `ENODEV` for an unknown device; `EPERM` without `CAP_NET_ADMIN`; `EACCES`
/// for IPv6 on a device where it is disabled.
pub(crate) fn add(route: &mut Route, index: u32, address: IpNet) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    if matches!(address, IpNet::V6(_)) {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    // The two differ on a point-to-point link only.
    message.attributes.extend([
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ]);
    let done = route.request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    );
    unless(Errno::EEXIST, done).with_context(|| format!("RTM_NEWADDR({address})"))
}

/// The addresses of a device that its administrator has given it, without those
/// that belong to its link alone: `ip address show dev NAME scope global`.
pub(crate) fn permanent(route: &mut Route, index: u32) -> Result<Vec<IpNet>> {
    let mut found = Vec::new();
    for message in dump(route)? {
        let header = &message.header;
        if header.index != index
            || header.scope != AddressScope::Universe
            || !header.flags.contains(AddressHeaderFlags::Permanent)
        {
            continue;
        }
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // Of a point-to-point link the other one is the peer's.
                AddressAttribute::Local(local) => address = Some(*local),
                AddressAttribute::Address(other) => address = address.or(Some(*other)),
                _ => {}
            }
        }
        if let Some(address) = address {
            let network = IpNet::new(address, header.prefix_len);
            found.push(network.context("RTM_GETADDR: the prefix of an address")?);
        }
    }
    Ok(found)
}

/// The IPv4 networks in which any device has an address.
pub(crate) fn networks(route: &mut Route) -> Result<Vec<Ipv4Net>> {
    let mut found = Vec::new();
    for message in dump(route)? {
        for attribute in &message.attributes {
            // Of a point-to-point link the peer's is beyond it.
            if let AddressAttribute::Local(ip) | AddressAttribute::Address(ip) = attribute
                && let IpAddr::V4(ip) = ip
            {
                let network = Ipv4Net::new(*ip, message.header.prefix_len);
                let network = network.context("RTM_GETADDR: the prefix of an address")?;
                found.push(network.trunc());
            }
        }
    }
    Ok(found)
}

fn dump(route: &mut Route) -> Result<impl Iterator<Item = AddressMessage>> {
    let all = route
        .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
        .context("RTM_GETADDR")?;
    Ok(all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) => Some(message),
        _ => None,
    }))
}

/// The MAC address for an IPv4 address: locally administered (second lowest bit
/// of the first byte), then "D", then the address.
///
/// A container that reuses the address of an ended one has its MAC address too,
/// so the neighbours' ARP caches (arp(7)) stay valid.
pub(crate) fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, b'D', a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_that_of_one_device_and_ours_to_give() {
        let mac = mac(Ipv4Addr::new(10, 213, 0, 2));
        assert_eq!(mac, [2, 0x44, 10, 213, 0, 2]);
        assert_eq!(mac[0] & 3, 2, "unicast and locally administered");
    }
}

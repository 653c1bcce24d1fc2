//! Addresses of devices (rtnetlink(7), `RTM_NEWADDR`), and the MAC addresses
//! that follow from them.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::kernel::link::{Mac, Route};
use crate::kernel::netlink::unless;

/// Gives a device an address, and with it the route to the network that the
/// prefix stands for: `ip address add ADDRESS/PREFIX dev NAME`. That it has
/// the address already is as good.
///
/// Duplicate address detection is left out for IPv6 (`IFA_F_NODAD`): it would
/// keep the address from being used for a second, and the addresses are known
/// to differ because one allocator gives them.
///
/// # Errors
/// `ENODEV`, `EPERM` without `CAP_NET_ADMIN`; `EACCES` for IPv6 on a device
/// where that is switched off.
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
    // On a network that is no point-to-point link the two are the same.
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

/// The MAC address that belongs to an IPv4 address: locally administered
/// (second lowest bit of the first byte), then "D", then the address.
///
/// A container that gets the address of one which is gone has its MAC address
/// too, so nobody's neighbour table (arp(7)) holds a wrong entry.
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

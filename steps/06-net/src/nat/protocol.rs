//! The protocols with ports, and the loopback network.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The loopback network, 127.0.0.0/8: addresses that must not leave a host.
pub(crate) const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// A protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol, tcp(7).
    Tcp,
    /// User Datagram Protocol, udp(7).
    Udp,
}

impl Protocol {
    /// The protocol number in the IPv4 header (protocols(5)).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => nix::libc::IPPROTO_TCP as u8,
            Protocol::Udp => nix::libc::IPPROTO_UDP as u8,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

//! The bridge: a switch on the host to which every container is connected.
//!
//! | module | what |
//! |---|---|
//! | this file | the bridge itself |
//! | [`ipam`] | the subnet and the allocation of addresses |
//! | [`network`] | bridge, packet filter and forwarding as one |
//! | [`user`] | bridges beside this one |

pub(crate) mod ipam;
pub(crate) mod network;
pub(crate) mod user;

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kit::say;

use crate::kernel::link::{self, Route};
use crate::kernel::{address, forwarding};

/// The name of the bridge.
pub(crate) const BRIDGE: &str = "drydock0";

/// The alias that marks the bridge as Drydock's, in case the state is lost:
/// `ip link show drydock0`.
pub(crate) const ALIAS: &str = "made by Drydock";

/// Creates the bridge, or its missing parts, and returns its interface index.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` on the host.
pub(crate) fn up(route: &mut Route, subnet: Ipv4Net, subnet6: Option<Ipv6Net>) -> Result<u32> {
    let gateway = ipam::gateway(subnet);
    if link::find(route, BRIDGE)?.is_none() {
        say!("ip link add {BRIDGE} up type bridge");
        link::add_bridge(route, BRIDGE, address::mac(gateway))?;
        link::set_alias(route, BRIDGE, ALIAS)?;
    }
    let bridge = link::find(route, BRIDGE)?.with_context(|| format!("{BRIDGE} has vanished"))?;
    for net in networks(gateway, subnet, subnet6)? {
        say!("ip address add {net} dev {BRIDGE}");
        address::add(route, bridge.index, net)?;
    }
    forwarding::route_localnet(BRIDGE)?;
    Ok(bridge.index)
}

/// A member's addresses, with the prefix lengths of the subnets.
pub(crate) fn networks(
    ip: Ipv4Addr,
    subnet: Ipv4Net,
    subnet6: Option<Ipv6Net>,
) -> Result<Vec<IpNet>> {
    let mut nets = vec![IpNet::new(ip.into(), subnet.prefix_len())?];
    if let Some(subnet6) = subnet6 {
        let ip6 = ipam::ipv6(subnet6, ip);
        nets.push(IpNet::new(ip6.into(), subnet6.prefix_len())?);
    }
    Ok(nets)
}

/// Removes the bridge.
pub(crate) fn down(route: &mut Route) -> Result<()> {
    say!("ip link del {BRIDGE}");
    link::delete(route, BRIDGE)
}

/// Removes a bridge that is in no state, and the veth devices on it, if it
/// bears Drydock's alias. Returns whether there was one.
///
/// # Errors
/// A device of that name without the alias. It is not touched.
pub(crate) fn remove_lost(route: &mut Route) -> Result<bool> {
    let Some(bridge) = link::find(route, BRIDGE)? else {
        return Ok(false);
    };
    if bridge.alias.as_deref() != Some(ALIAS) {
        bail!(
            "the device {BRIDGE} exists and was not created by Drydock: rename it, or remove it \
             (ip link del {BRIDGE})"
        );
    }
    for port in link::list(route)? {
        if port.master == Some(bridge.index) && port.name.starts_with(crate::VETH) {
            link::delete(route, &port.name)?;
        }
    }
    down(route)?;
    Ok(true)
}

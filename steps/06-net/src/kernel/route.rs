//! Routes (rtnetlink(7), `RTM_NEWROUTE`): the container's default route, and
//! the routes of the host, which a new subnet must not cut off.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use kit::errno::errno_of;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::kernel::link::{self, Route};

/// Adds the default route: `ip route add default via GATEWAY`.
///
/// # Errors
/// `ENETUNREACH` if no device that is up has the gateway's network; `EPERM`
/// without `CAP_NET_ADMIN`.
pub(crate) fn add_default(route: &mut Route, gateway: Ipv4Addr) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    route
        .request(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .with_context(|| format!("RTM_NEWROUTE(default via {gateway})"))
}

/// Whether there is a default route: `ip route show default`.
pub(crate) fn has_default(route: &mut Route) -> Result<bool> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let replies = route
        .dump(RouteNetlinkMessage::GetRoute(request))
        .context("RTM_GETROUTE(all)")?;
    Ok(replies.into_iter().any(|reply| match reply {
        RouteNetlinkMessage::NewRoute(found) => {
            found.header.table == RouteHeader::RT_TABLE_MAIN
                && found.header.destination_prefix_length == 0
        }
        _ => false,
    }))
}

/// Whether the kernel takes packets for `ip` as its own: `ip route get IP`
/// prints `local`.
pub(crate) fn is_local(route: &mut Route, ip: Ipv6Addr) -> Result<bool> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet6;
    request.header.destination_prefix_length = 128;
    request
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::Inet6(ip)));
    match route.get(RouteNetlinkMessage::GetRoute(request)) {
        Ok(Some(RouteNetlinkMessage::NewRoute(found))) => Ok(found.header.kind == RouteType::Local),
        Ok(_) => Ok(false),
        Err(error) if errno_of(&error) == Some(Errno::ENETUNREACH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("RTM_GETROUTE({ip})")),
    }
}

/// A route of the host to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The destination network.
    pub to: Ipv4Net,
    /// The name of the outgoing device.
    pub device: String,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.to, self.device)
    }
}

/// Lists the IPv4 routes of the host in all its tables, except the default
/// route and those through `device`: `ip route show table all`.
pub(crate) fn list(route: &mut Route, device: &str) -> Result<Vec<Known>> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let replies = route
        .dump(RouteNetlinkMessage::GetRoute(request))
        .context("RTM_GETROUTE(all)")?;
    let links = link::list(route)?;
    let name_of = |index| {
        links
            .iter()
            .find(|link| link.index == index)
            .map_or_else(|| format!("#{index}"), |link| link.name.clone())
    };
    Ok(replies
        .into_iter()
        .filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(message) => known(message, name_of),
            _ => None,
        })
        .filter(|known| known.device != device)
        .collect())
}

fn known(message: RouteMessage, name_of: impl Fn(u32) -> String) -> Option<Known> {
    let prefix = message.header.destination_prefix_length;
    let mut to = None;
    let mut device = String::from("none");
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(ip),
            RouteAttribute::Oif(index) => device = name_of(index),
            _ => {}
        }
    }
    // A route without a destination is the default route.
    Some(Known {
        to: Ipv4Net::new(to?, prefix).ok()?,
        device,
    })
}

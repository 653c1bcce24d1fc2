//! User-defined bridges: those beside the default one, each with a subnet of
//! its own. Step 12 describes them as networks.
//!
//! They exist while a container is on them. The default network is there as
//! well then, since it holds what all bridges share: the table of the packet
//! filter, and forwarding.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use kit::say;
use serde::{Deserialize, Serialize};

use crate::bridge::{ALIAS, ipam};
use crate::kernel::link::{self, Route};
use crate::kernel::{address, forwarding};

/// The prefix of the names of user-defined bridges: Docker's.
pub const PREFIX: &str = "br-";

/// A user-defined bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserBridge {
    /// The name of the device: 15 bytes at most, the first of them [`PREFIX`].
    pub device: String,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// The address of the bridge.
    pub gateway: Ipv4Addr,
    /// The part of the subnet from which addresses are allocated; `None` for
    /// all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Ipv4Net>,
    /// Whether nothing leads out of it, and nothing in.
    #[serde(default)]
    pub internal: bool,
}

impl UserBridge {
    /// Checks the name and the addresses.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn check(&self) -> Result<()> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(
            self.device.starts_with(PREFIX)
                && (PREFIX.len() + 1..=15).contains(&self.device.len())
                && self.device.chars().all(fits),
            "{:?} is no name of a user-defined bridge",
            self.device
        );
        ipam::check(self.subnet)?;
        is_host(self.subnet, self.gateway).context("the gateway")?;
        if let Some(range) = self.range {
            ensure!(
                self.subnet.contains(&range),
                "the range {range} is not in the subnet {}",
                self.subnet
            );
        }
        Ok(())
    }

    /// An address of the subnet with the length of its prefix.
    pub(crate) fn with_prefix(&self, ip: Ipv4Addr) -> Result<IpNet> {
        Ok(IpNet::new(ip.into(), self.subnet.prefix_len())?)
    }

    /// Allocates an address: the one asked for, or the lowest free one of the
    /// range.
    ///
    /// # Errors
    /// The range is full; or the address asked for is unavailable, and why.
    pub(crate) fn allocate(
        &self,
        taken: &BTreeMap<Ipv4Addr, String>,
        asked: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr> {
        let subnet = self.subnet;
        let Some(ip) = asked else {
            let range = self.range.unwrap_or(subnet);
            let mut all = u32::from(range.network())..=u32::from(range.broadcast());
            let free = all.find_map(|bits| {
                let ip = Ipv4Addr::from(bits);
                let free = ip != subnet.network()
                    && ip != subnet.broadcast()
                    && ip != self.gateway
                    && !taken.contains_key(&ip);
                free.then_some(ip)
            });
            return free.with_context(|| {
                format!(
                    "no available IPv4 addresses in {range}: {} containers have one",
                    taken.len()
                )
            });
        };
        is_host(subnet, ip)?;
        ensure!(
            ip != self.gateway && !taken.contains_key(&ip),
            "Address already in use: {ip}"
        );
        Ok(ip)
    }
}

/// A user-defined bridge that a container joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The bridge.
    pub bridge: UserBridge,
    /// The address asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
}

fn is_host(subnet: Ipv4Net, ip: Ipv4Addr) -> Result<()> {
    ensure!(subnet.contains(&ip), "{ip} is not in the subnet {subnet}");
    ensure!(
        ip != subnet.network() && ip != subnet.broadcast(),
        "{ip} is not the address of a host: it stands for the subnet {subnet} itself"
    );
    Ok(())
}

/// Creates the bridge, or its missing parts, and returns its interface index.
///
/// # Errors
/// A device of that name that Drydock has not made; a route of the host that the
/// subnet would cut off.
pub(crate) fn up(route: &mut Route, bridge: &UserBridge) -> Result<u32> {
    let device = &bridge.device;
    match link::find(route, device)? {
        None => {
            let routes = crate::kernel::route::list(route, device)?;
            ipam::choose(Some(bridge.subnet), &routes)?;
            say!("ip link add {device} up type bridge");
            link::add_bridge(route, device, address::mac(bridge.gateway))?;
            link::set_alias(route, device, ALIAS)?;
        }
        Some(found) if found.alias.as_deref() != Some(ALIAS) => {
            bail!("the device {device} exists and was not created by Drydock: rename it")
        }
        Some(_) => {}
    }
    let found = link::find(route, device)?.with_context(|| format!("{device} has vanished"))?;
    let net = bridge.with_prefix(bridge.gateway)?;
    say!("ip address add {net} dev {device}");
    address::add(route, found.index, net)?;
    forwarding::route_localnet(device)?;
    Ok(found.index)
}

/// Removes the bridge.
pub(crate) fn down(route: &mut Route, device: &str) -> Result<()> {
    say!("ip link del {device}");
    link::delete(route, device)
}

/// Removes user-defined bridges that bear Drydock's alias and are in no state,
/// and the veth devices on them. Returns their names.
pub(crate) fn remove_lost(
    route: &mut Route,
    known: &BTreeMap<String, UserBridge>,
) -> Result<Vec<String>> {
    let all = link::list(route)?;
    let mut removed = Vec::new();
    for bridge in &all {
        if !bridge.name.starts_with(PREFIX)
            || bridge.alias.as_deref() != Some(ALIAS)
            || known.contains_key(&bridge.name)
        {
            continue;
        }
        for port in &all {
            if port.master == Some(bridge.index) && port.name.starts_with(crate::VETH) {
                link::delete(route, &port.name)?;
            }
        }
        down(route, &bridge.name)?;
        removed.push(bridge.name.clone());
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(subnet: &str, gateway: &str, range: Option<&str>) -> UserBridge {
        UserBridge {
            device: "br-0123456789ab".into(),
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            internal: false,
        }
    }

    #[test]
    fn a_description_is_checked() {
        bridge("10.9.0.0/24", "10.9.0.254", Some("10.9.0.128/25"))
            .check()
            .unwrap();
        for (gateway, range, why) in [
            ("10.8.0.1", None, "not in the subnet"),
            ("10.9.0.0", None, "not the address of a host"),
            ("10.9.0.1", Some("10.8.0.0/25"), "the range"),
        ] {
            let error = bridge("10.9.0.0/24", gateway, range).check().unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
        let mut named = bridge("10.9.0.0/24", "10.9.0.1", None);
        for name in ["drydock0", "br-", "br-a/b", "br-0123456789abc"] {
            named.device = name.into();
            assert!(named.check().is_err(), "{name}");
        }
    }

    #[test]
    fn addresses_come_from_the_range_and_are_not_given_twice() {
        let bridge = bridge("10.9.0.0/24", "10.9.0.128", Some("10.9.0.128/30"));
        let mut taken = BTreeMap::new();
        for n in 129..=131 {
            let ip = bridge.allocate(&taken, None).unwrap();
            assert_eq!(ip, Ipv4Addr::new(10, 9, 0, n));
            taken.insert(ip, String::new());
        }
        let full = bridge.allocate(&taken, None).unwrap_err().to_string();
        assert!(full.starts_with("no available IPv4 addresses"), "{full}");
        // One that is asked for may be outside the range.
        let asked = |n| bridge.allocate(&taken, Some(Ipv4Addr::new(10, 9, 0, n)));
        assert!(asked(7).is_ok());
        for n in [0, 128, 130, 255] {
            assert!(asked(n).is_err(), "{n}");
        }
    }
}

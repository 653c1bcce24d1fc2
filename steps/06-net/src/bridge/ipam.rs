//! IP address management: the choice of the subnet, and the allocation of
//! addresses in it. [`state`](crate::ledger::state) records the allocated
//! addresses.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::kernel::route::Known;

/// The default subnets, in the order in which they are tried: parts of the
/// private address space (RFC 1918) that home routers, companies and other
/// engines rarely use.
pub(crate) const DEFAULTS: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 214, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 29, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 213, 0), 24),
];

/// Chooses the subnet of the bridge: the one asked for, or the first free one
/// of [`DEFAULTS`].
///
/// # Errors
/// Names the host's route that the subnet would cut off.
pub(crate) fn choose(asked: Option<Ipv4Net>, routes: &[Known]) -> Result<Ipv4Net> {
    let in_the_way = |subnet: Ipv4Net| {
        routes.iter().find(|known| {
            known.to.contains(&subnet.network()) || subnet.contains(&known.to.network())
        })
    };
    if let Some(subnet) = asked {
        return match in_the_way(subnet) {
            None => Ok(subnet),
            Some(known) => bail!(
                "--subnet {subnet} overlaps with the host's route {known}: choose another one"
            ),
        };
    }
    match DEFAULTS.into_iter().find(|net| in_the_way(*net).is_none()) {
        Some(subnet) => Ok(subnet),
        None => {
            bail!("the host has routes into all of the default subnets: choose one with --subnet")
        }
    }
}

/// Checks that containers can have addresses in `subnet`.
///
/// # Errors
/// Says what is wrong with it, and what was probably meant.
pub(crate) fn check(subnet: Ipv4Net) -> Result<()> {
    let network = subnet.trunc();
    ensure!(
        subnet == network,
        "{subnet} is an address in a network: did you mean {network}?"
    );
    ensure!(
        subnet.prefix_len() <= 30,
        "{subnet} has no room for a bridge and a container: /30 is the smallest"
    );
    let ip = subnet.network();
    ensure!(
        subnet.prefix_len() >= 8
            && ip.octets()[0] != 0
            && !ip.is_loopback()
            && ip.octets()[0] < 224,
        "{subnet} is not a network of ordinary addresses: use a part of 10.0.0.0/8, 172.16.0.0/12 \
         or 192.168.0.0/16"
    );
    Ok(())
}

/// The address of the bridge, which is the containers' gateway: the first of
/// the subnet.
pub(crate) fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    subnet.hosts().next().unwrap_or(subnet.addr())
}

/// Allocates an address for a container: the one asked for, or the lowest free
/// one. The addresses of the network and of the bridge and the broadcast
/// address are never allocated. `taken` maps each allocated address to its
/// container's id.
///
/// # Errors
/// The subnet is full; or the address asked for is unavailable, and why.
pub(crate) fn allocate(
    subnet: Ipv4Net,
    taken: &BTreeMap<Ipv4Addr, String>,
    asked: Option<Ipv4Addr>,
) -> Result<Ipv4Addr> {
    let gateway = gateway(subnet);
    let Some(ip) = asked else {
        let free = subnet
            .hosts()
            .find(|ip| *ip != gateway && !taken.contains_key(ip));
        return free.with_context(|| {
            format!(
                "no address left in {subnet}: {} containers have one; stop some, or start the \
                 first one with a larger --subnet",
                taken.len()
            )
        });
    };
    ensure!(
        subnet.contains(&ip),
        "--ip {ip} is not in the subnet of the bridge, {subnet}"
    );
    ensure!(
        ip != subnet.network() && ip != subnet.broadcast(),
        "--ip {ip} is not the address of a host: it stands for the subnet {subnet} itself"
    );
    ensure!(ip != gateway, "--ip {ip} is the address of the bridge");
    match taken.get(&ip) {
        Some(holder) => bail!("--ip {ip} is taken by container {holder}"),
        None => Ok(ip),
    }
}

/// A unique local IPv6 subnet (RFC 4193): fd00::/8, 40 random bits from
/// /dev/urandom, and subnet 0. The random bits let two hosts be connected later
/// without renumbering.
pub(crate) fn unique_local() -> Result<Ipv6Net> {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes[1..6]))
        .context("read /dev/urandom")?;
    Ok(Ipv6Net::new_assert(Ipv6Addr::from(bytes), 64))
}

/// The IPv6 address that corresponds to an IPv4 address: its 32 bits are the
/// lowest of the interface identifier. So one allocator serves both.
pub(crate) fn ipv6(subnet: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    let host = u128::from(u32::from(address));
    Ipv6Addr::from(u128::from(subnet.network()) | host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn routes(list: &[&str]) -> Vec<Known> {
        list.iter()
            .map(|to| Known {
                to: net(to),
                device: "eth0".to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_subnet_is_refused_that_would_cut_off_a_route_of_the_host() {
        for route in ["10.9.0.0/16", "10.9.1.0/24", "10.0.0.0/8", "10.9.1.7/32"] {
            let error = choose(Some(net("10.9.1.0/24")), &routes(&[route])).unwrap_err();
            assert!(error.to_string().contains(&format!("{route} dev eth0")));
        }
        let subnet = choose(Some(net("10.9.1.0/24")), &routes(&["10.9.2.0/24"]));
        assert_eq!(subnet.unwrap(), net("10.9.1.0/24"));
    }

    #[test]
    fn the_first_default_subnet_that_is_free_is_chosen() {
        assert_eq!(choose(None, &[]).unwrap(), DEFAULTS[0]);
        assert_eq!(
            choose(None, &routes(&["10.213.5.0/24"])).unwrap(),
            DEFAULTS[1]
        );
        assert_eq!(choose(None, &routes(&["10.0.0.0/8"])).unwrap(), DEFAULTS[2]);
        let all = routes(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]);
        assert!(choose(None, &all).is_err());
    }

    #[test]
    fn a_subnet_has_room_and_no_host_bits() {
        for subnet in DEFAULTS {
            check(subnet).unwrap();
        }
        check(net("10.9.1.0/30")).unwrap();
        for (subnet, reason) in [
            ("10.9.1.5/24", "did you mean 10.9.1.0/24"),
            ("10.9.1.0/31", "no room"),
            ("10.9.1.0/32", "no room"),
            ("127.0.0.0/8", "not a network of ordinary"),
            ("224.0.0.0/16", "not a network of ordinary"),
            ("0.0.0.0/0", "not a network of ordinary"),
        ] {
            let error = check(net(subnet)).unwrap_err().to_string();
            assert!(error.contains(reason), "{subnet}: {error}");
        }
    }

    #[test]
    fn the_lowest_free_address_is_given_until_none_is_left() {
        let subnet = net("10.9.1.0/29");
        let mut taken = BTreeMap::new();
        for n in 2..=6 {
            let given = allocate(subnet, &taken, None).unwrap();
            assert_eq!(given, Ipv4Addr::new(10, 9, 1, n));
            taken.insert(given, n.to_string());
        }
        let error = allocate(subnet, &taken, None).unwrap_err().to_string();
        assert!(error.starts_with("no address left in 10.9.1.0/29: 5 containers"));
        taken.remove(&ip("10.9.1.4"));
        assert_eq!(allocate(subnet, &taken, None).unwrap(), ip("10.9.1.4"));
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_or_refused_with_the_reason() {
        let subnet = net("10.9.1.0/24");
        let taken = BTreeMap::from([(ip("10.9.1.9"), "4711".to_owned())]);
        let ask = |text| allocate(subnet, &taken, Some(ip(text)));
        assert_eq!(ask("10.9.1.8").unwrap(), ip("10.9.1.8"));
        for (address, reason) in [
            ("10.9.1.9", "is taken by container 4711"),
            ("10.9.1.1", "address of the bridge"),
            ("10.9.1.0", "subnet 10.9.1.0/24 itself"),
            ("10.9.1.255", "subnet 10.9.1.0/24 itself"),
            ("10.9.2.2", "not in the subnet"),
        ] {
            let error = ask(address).unwrap_err().to_string();
            assert!(error.contains(reason), "{address}: {error}");
        }
    }

    #[test]
    fn an_ipv6_address_follows_from_the_ipv4_address() {
        let subnet = unique_local().unwrap();
        assert!(subnet.network().is_unique_local());
        let subnet: Ipv6Net = "fd12:3456:789a::/64".parse().unwrap();
        assert_eq!(
            ipv6(subnet, ip("10.213.0.2")).to_string(),
            "fd12:3456:789a::ad5:2"
        );
    }
}

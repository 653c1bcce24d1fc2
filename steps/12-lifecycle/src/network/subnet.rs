//! The addresses of a new network: those asked for, or the first of Docker's
//! default subnets that nothing uses.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;

use crate::network::store::Subnet;

/// What `network create` asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--subnet`.
    pub subnet: Option<String>,
    /// `--ip-range`.
    pub range: Option<String>,
    /// `--gateway`.
    pub gateway: Option<String>,
}

/// The subnets from which one is chosen, in their order: 172.18.0.0/16 to
/// 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20. Docker's first,
/// 172.17.0.0/16, is that of its own default bridge.
fn defaults() -> impl Iterator<Item = Ipv4Net> {
    let sixteen = (18..32).map(|n| Ipv4Net::new_assert(Ipv4Addr::new(172, n, 0, 0), 16));
    let twenty = (0..16).map(|n| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    sixteen.chain(twenty)
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Chooses the addresses of a network. `networks` are the subnets of others, and
/// `routes` where the host has routes to.
///
/// # Errors
/// Docker's words for what does not fit.
pub fn choose(wanted: &Wanted, networks: &[Ipv4Net], routes: &[Ipv4Net]) -> Result<Subnet> {
    let Some(text) = &wanted.subnet else {
        ensure!(
            wanted.range.is_none() && wanted.gateway.is_none(),
            "every ip-range or gateway must have a corresponding subnet"
        );
        let free = defaults().find(|subnet| {
            let mut used = networks.iter().chain(routes);
            !used.any(|one| overlap(one, subnet))
        });
        let subnet = free.context(
            "could not find an available, non-overlapping IPv4 address pool among the defaults to \
             assign to the network",
        )?;
        return Ok(Subnet {
            subnet,
            range: None,
            gateway: first(subnet),
            chosen: false,
        });
    };
    let subnet: Ipv4Net = text
        .parse()
        .ok()
        .with_context(|| format!("Invalid subnet {text} : invalid CIDR address: {text}"))?;
    let subnet = subnet.trunc();
    let range = match &wanted.range {
        None => None,
        Some(text) => {
            let range: Option<Ipv4Net> = text.parse().ok();
            let range = range.filter(|range| subnet.contains(range));
            Some(range.with_context(|| format!("no matching subnet for range {text}"))?)
        }
    };
    let gateway = match &wanted.gateway {
        None => first(subnet),
        Some(text) => {
            let gateway: Option<Ipv4Addr> = text.parse().ok();
            let gateway = gateway.filter(|gateway| subnet.contains(gateway));
            gateway.with_context(|| format!("no matching subnet for gateway {text}"))?
        }
    };
    if networks.iter().any(|one| overlap(one, &subnet)) {
        bail!("Pool overlaps with other one on this address space");
    }
    // Docker cuts the host off from there.
    if let Some(route) = routes.iter().find(|one| overlap(one, &subnet)) {
        bail!("--subnet {subnet} overlaps with the host's route to {route}: choose another one");
    }
    Ok(Subnet {
        subnet,
        range: range.map(|range| range.trunc()),
        gateway,
        chosen: true,
    })
}

fn first(subnet: Ipv4Net) -> Ipv4Addr {
    subnet.hosts().next().unwrap_or(subnet.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_default_that_is_free_is_chosen() {
        let choose = |networks: &[&str], routes: &[&str]| {
            choose(&Wanted::default(), &nets(networks), &nets(routes))
                .map(|chosen| chosen.subnet.to_string())
        };
        assert_eq!(choose(&[], &[]).unwrap(), "172.18.0.0/16");
        assert_eq!(
            choose(&["172.18.0.0/24"], &["172.19.3.0/24"]).unwrap(),
            "172.20.0.0/16"
        );
        assert_eq!(choose(&[], &["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        let all = ["172.16.0.0/12", "192.168.0.0/16"];
        assert!(choose(&[], &all).is_err());
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused_in_dockers_words() {
        let ask = |subnet: &str, range: Option<&str>, gateway: Option<&str>| {
            let wanted = Wanted {
                subnet: Some(subnet.into()),
                range: range.map(str::to_owned),
                gateway: gateway.map(str::to_owned),
            };
            choose(&wanted, &nets(&["172.18.0.0/16"]), &nets(&["10.1.0.0/16"]))
        };
        let given = ask("10.9.0.0/24", Some("10.9.0.128/25"), Some("10.9.0.254")).unwrap();
        assert_eq!(given.gateway.to_string(), "10.9.0.254");
        let given = ask("10.9.0.5/24", None, None).unwrap();
        assert_eq!(given.subnet.to_string(), "10.9.0.0/24");
        assert_eq!(given.gateway.to_string(), "10.9.0.1");
        for (subnet, range, gateway, words) in [
            ("foo", None, None, "Invalid subnet foo : invalid CIDR"),
            (
                "10.9.0.0/24",
                None,
                Some("10.1.1.1"),
                "no matching subnet for gateway",
            ),
            (
                "10.9.0.0/24",
                None,
                Some("foo"),
                "no matching subnet for gateway",
            ),
            (
                "10.9.0.0/24",
                Some("10.1.1.0/24"),
                None,
                "no matching subnet for range",
            ),
            ("172.18.3.0/24", None, None, "Pool overlaps"),
            ("10.1.2.0/24", None, None, "the host's route"),
        ] {
            let error = ask(subnet, range, gateway).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

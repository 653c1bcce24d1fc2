//! The host's packet filter: containers reach the outside under the host's
//! address, and the outside reaches only their published ports.
//!
//! | chain | when | what it does |
//! |---|---|---|
//! | `raw` | a packet arrives, before anything else | drops loopback addresses on the bridge |
//! | `prerouting` | then | sends published ports to their containers |
//! | `output` | the host itself sends | sends published ports to their containers |
//! | `forward` | a packet passes through | keeps others out of the bridge |
//! | `postrouting` | a packet leaves | masquerades |
//!
//! | module | what |
//! |---|---|
//! | this file | all rules: those that all containers share, and those of a published port |
//! | [`rule`], [`expression`] | rules in the terms of nft(8), and their expressions |
//! | [`table`] | Drydock's table, and the transactions that change it |
//! | [`protocol`] | protocols that have ports, and the loopback network |
//! | [`publish`] | the option `-p` |
//! | [`user`] | the rules of user-defined bridges |
//! | [`firewall`] | other packet filters of the host that block containers |

mod expression;
pub(crate) mod firewall;
pub(crate) mod protocol;
pub(crate) mod publish;
pub(crate) mod rule;
pub(crate) mod table;
mod user;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use kit::errno::errno_of;
use netlink_packet_netfilter::nftables::InetHookNumber;
use nix::errno::Errno;

use crate::bridge::BRIDGE;
use crate::bridge::user::UserBridge;
use crate::nat::protocol::LOOPBACK;
use crate::nat::publish::Publish;
use crate::nat::rule::Rule;
use crate::nat::table::{BaseChain, Netfilter, Transaction};

/// The base chains, with the priorities that nft calls `raw` (before connection
/// tracking), `dstnat`, `filter` and `srcnat`.
const CHAINS: [BaseChain; 5] = [
    BaseChain {
        name: "raw",
        kind: "filter",
        hook: InetHookNumber::PreRouting,
        priority: -300,
    },
    BaseChain {
        name: "prerouting",
        kind: "nat",
        hook: InetHookNumber::PreRouting,
        priority: -100,
    },
    BaseChain {
        name: "output",
        kind: "nat",
        hook: InetHookNumber::LocalOut,
        priority: -100,
    },
    BaseChain {
        name: "forward",
        kind: "filter",
        hook: InetHookNumber::Forward,
        priority: 0,
    },
    BaseChain {
        name: "postrouting",
        kind: "nat",
        hook: InetHookNumber::PostRouting,
        priority: 100,
    },
];

// ANCHOR: rules
/// The rules that all containers share.
///
/// `router` says whether the host forwarded packets before the first container.
/// If it did not, it must not begin to do so for others: forwarding is switched
/// on for a whole host, and a host in two networks would join them.
pub(crate) fn rules(
    subnet: Ipv4Net,
    router: bool,
    bridges: &BTreeMap<String, UserBridge>,
) -> Vec<Rule> {
    // ANCHOR: exercise_masquerade
    let forward = || Rule::new("forward");
    let postrouting = || Rule::new("postrouting");
    let mut rules = vec![
        // The bridge has route_localnet (see `bridge`), which only the host
        // needs. Without these rules a container could reach the services on
        // the host's loopback, or impersonate them.
        Rule::new("raw").iifname(BRIDGE).ip_saddr(LOOPBACK).drop(),
        Rule::new("raw").iifname(BRIDGE).ip_daddr(LOOPBACK).drop(),
        // Only answers, connections to published ports, and packets of other
        // containers enter the bridge. A neighbour of the host that routes the
        // subnet to it is dropped.
        forward()
            .iifname_not(BRIDGE)
            .oifname(BRIDGE)
            .ct_state_established_related()
            .accept(),
        forward()
            .iifname_not(BRIDGE)
            .oifname(BRIDGE)
            .ct_status_dnat()
            .accept(),
        forward().iifname_not(BRIDGE).oifname(BRIDGE).drop(),
        // To the outside, where there is no route to the subnet.
        postrouting()
            .ip_saddr(subnet)
            .oifname_not(BRIDGE)
            .masquerade(),
        // From the host's loopback to a published port: the container would
        // answer to its own loopback.
        postrouting()
            .ip_saddr(LOOPBACK)
            .oifname(BRIDGE)
            .masquerade(),
        // From a container to a published port of the host, and so to another
        // container: that one would answer its neighbour directly, from an
        // address to which the neighbour has no connection.
        postrouting()
            .ip_saddr(subnet)
            .oifname(BRIDGE)
            .ct_status_dnat()
            .masquerade(),
    ];
    if !router {
        let ours = bridges.keys().map(String::as_str).chain([BRIDGE]);
        let others = ours.fold(forward(), |rule, name| {
            rule.iifname_not(name).oifname_not(name)
        });
        rules.push(others.drop());
    }
    rules
    // ANCHOR_END: exercise_masquerade
}
// ANCHOR_END: rules

// ANCHOR: published
/// The rules that direct the host's port to the container at `address`.
///
/// `prerouting` sees packets from other hosts and from containers, `output`
/// those that the host sends to itself. A port on a loopback address is for the
/// host alone, so it has no rule in `prerouting`: a neighbour may send us
/// packets for 127.0.0.1.
pub(crate) fn published(port: &Publish, address: Ipv4Addr, comment: &str) -> Vec<Rule> {
    // ANCHOR: exercise_publish
    let lead = |rule: Rule| {
        rule.dport(port.protocol, port.host_port)
            .dnat(address, port.port)
            .comment(comment)
    };
    let (outside, own) = (Rule::new("prerouting"), Rule::new("output"));
    if port.ip.is_unspecified() {
        return vec![
            lead(outside.ip_daddr_not(LOOPBACK).fib_daddr_local()),
            lead(own.fib_daddr_local()),
        ];
    }
    let own = lead(own.ip_daddr(port.ip.into()));
    if port.ip.is_loopback() {
        return vec![own];
    }
    vec![lead(outside.ip_daddr(port.ip.into())), own]
    // ANCHOR_END: exercise_publish
}
// ANCHOR_END: published

/// Recreates the table, with the shared rules and those given.
///
/// # Errors
/// `ENOENT`, `EOPNOTSUPP` or `EPROTONOSUPPORT` if the kernel lacks a part of
/// nf_tables; the message lists the modules.
pub(crate) fn install(
    netfilter: &mut Netfilter,
    subnet: Ipv4Net,
    router: bool,
    bridges: &BTreeMap<String, UserBridge>,
    more: Vec<Rule>,
) -> Result<()> {
    let mut transaction = Transaction::new().fresh_table();
    for chain in CHAINS {
        transaction = transaction.chain(chain);
    }
    let of_bridges = bridges.values().flat_map(user::rules);
    for rule in of_bridges.chain(rules(subnet, router, bridges)).chain(more) {
        transaction = transaction.rule(rule);
    }
    let Err(error) = transaction.commit(netfilter) else {
        return Ok(());
    };
    match errno_of(&error) {
        Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => Err(error).context(
            "this kernel lacks a part of nf_tables (modules nft_chain_nat, nft_nat, nft_masq, \
             nft_ct, nft_fib_ipv4)",
        ),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(router: bool) -> String {
        rules("10.0.0.0/24".parse().unwrap(), router, &BTreeMap::new())
            .iter()
            .map(|rule| format!("{rule}\n"))
            .collect()
    }

    #[test]
    fn the_rules_read_as_nft_would_write_them() {
        assert_eq!(
            text(true),
            r#"raw iifname "drydock0" ip saddr 127.0.0.0/8 drop
raw iifname "drydock0" ip daddr 127.0.0.0/8 drop
forward iifname != "drydock0" oifname "drydock0" ct state established,related accept
forward iifname != "drydock0" oifname "drydock0" ct status dnat accept
forward iifname != "drydock0" oifname "drydock0" drop
postrouting ip saddr 10.0.0.0/24 oifname != "drydock0" masquerade
postrouting ip saddr 127.0.0.0/8 oifname "drydock0" masquerade
postrouting ip saddr 10.0.0.0/24 oifname "drydock0" ct status dnat masquerade
"#
        );
    }

    #[test]
    fn a_host_that_was_no_router_becomes_none() {
        assert!(
            text(false).ends_with("forward iifname != \"drydock0\" oifname != \"drydock0\" drop\n")
        );
    }

    fn of_port(text: &str) -> Vec<String> {
        let publish: Publish = text.parse().unwrap();
        let rules = published(&publish, Ipv4Addr::new(10, 0, 0, 2), "7");
        rules.iter().map(Rule::to_string).collect()
    }

    #[test]
    fn a_port_on_all_addresses_is_for_the_addresses_of_the_host_only() {
        assert_eq!(
            of_port("8080:80"),
            [
                "prerouting ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 8080 dnat to \
                 10.0.0.2:80 comment \"7\"",
                "output fib daddr type local tcp dport 8080 dnat to 10.0.0.2:80 comment \"7\"",
            ]
        );
    }

    #[test]
    fn a_port_on_loopback_is_not_for_other_hosts() {
        assert_eq!(
            of_port("127.0.0.1:8080:80/udp"),
            ["output ip daddr 127.0.0.1/32 udp dport 8080 dnat to 10.0.0.2:80 comment \"7\""]
        );
    }
}

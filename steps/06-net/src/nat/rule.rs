//! Rules of nf_tables, in the terms of nft(8).
//!
//! A rule is a small program: its expressions run from left to right on a
//! packet, and the first comparison that fails ends it.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_netfilter::nftables::{MetaKey, Operator};

use crate::nat::expression::{
    self, CT_STATE, CT_STATUS, DESTINATION_ADDRESS, DESTINATION_PORT, Expression, Field,
    SOURCE_ADDRESS,
};
use crate::nat::protocol::Protocol;

/// `RTN_LOCAL` of rtnetlink(7): an address of this host.
const RTN_LOCAL: u32 = 2;
/// Bits of `ct state`: `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and `(IP_CT_RELATED)`.
const ESTABLISHED_RELATED: u32 = 2 | 4;
/// Bit of `ct status`: `IPS_DST_NAT`.
const DST_NAT: u32 = 32;

/// A rule: its chain, its matches and its action. It is displayed in the syntax
/// of nft(8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: &'static str,
    pub(crate) expressions: Vec<Expression>,
    pub(crate) comment: Option<String>,
    words: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.chain, self.words)
    }
}

impl Rule {
    /// An empty rule, to be appended to `chain`.
    pub(crate) fn new(chain: &'static str) -> Self {
        Rule {
            chain,
            expressions: Vec::new(),
            comment: None,
            words: String::new(),
        }
    }

    /// Matches a packet that came in by the device `name`.
    #[must_use]
    pub(crate) fn iifname(self, name: &str) -> Self {
        self.device(MetaKey::Iifname, Operator::Equal, name)
            .says(format_args!("iifname \"{name}\""))
    }

    /// Matches a packet that came in by another device than `name`, or that the
    /// host sends.
    #[must_use]
    pub(crate) fn iifname_not(self, name: &str) -> Self {
        self.device(MetaKey::Iifname, Operator::NotEqual, name)
            .says(format_args!("iifname != \"{name}\""))
    }

    /// Matches a packet that goes out by the device `name`.
    #[must_use]
    pub(crate) fn oifname(self, name: &str) -> Self {
        self.device(MetaKey::Oifname, Operator::Equal, name)
            .says(format_args!("oifname \"{name}\""))
    }

    /// Matches a packet that goes out by another device than `name`.
    #[must_use]
    pub(crate) fn oifname_not(self, name: &str) -> Self {
        self.device(MetaKey::Oifname, Operator::NotEqual, name)
            .says(format_args!("oifname != \"{name}\""))
    }

    /// Matches a source address in `network`.
    #[must_use]
    pub(crate) fn ip_saddr(self, network: Ipv4Net) -> Self {
        self.network(SOURCE_ADDRESS, Operator::Equal, network)
            .says(format_args!("ip saddr {network}"))
    }

    /// Matches a destination address in `network`.
    #[must_use]
    pub(crate) fn ip_daddr(self, network: Ipv4Net) -> Self {
        self.network(DESTINATION_ADDRESS, Operator::Equal, network)
            .says(format_args!("ip daddr {network}"))
    }

    /// Matches a destination address outside `network`.
    #[must_use]
    pub(crate) fn ip_daddr_not(self, network: Ipv4Net) -> Self {
        self.network(DESTINATION_ADDRESS, Operator::NotEqual, network)
            .says(format_args!("ip daddr != {network}"))
    }

    /// Matches a destination that is any of the host's own addresses.
    #[must_use]
    pub(crate) fn fib_daddr_local(self) -> Self {
        let local = RTN_LOCAL.to_ne_bytes().to_vec();
        self.push([
            expression::fib_daddr_type(),
            expression::cmp(Operator::Equal, local),
        ])
        .says(format_args!("fib daddr type local"))
    }

    /// Matches the protocol and the destination port.
    #[must_use]
    pub(crate) fn dport(self, protocol: Protocol, port: u16) -> Self {
        self.push([
            expression::meta(MetaKey::L4Proto),
            expression::cmp(Operator::Equal, vec![protocol.number()]),
            expression::payload(DESTINATION_PORT),
            expression::cmp(Operator::Equal, port.to_be_bytes().to_vec()),
        ])
        .says(format_args!("{protocol} dport {port}"))
    }

    /// Matches a packet of a connection that was accepted before, or an error
    /// message about one.
    #[must_use]
    pub(crate) fn ct_state_established_related(self) -> Self {
        self.connection(CT_STATE, ESTABLISHED_RELATED)
            .says(format_args!("ct state established,related"))
    }

    /// Matches a packet of a connection whose destination was rewritten: here,
    /// one to a published port.
    #[must_use]
    pub(crate) fn ct_status_dnat(self) -> Self {
        self.connection(CT_STATUS, DST_NAT)
            .says(format_args!("ct status dnat"))
    }

    /// Redirects the connection to another address and port.
    #[must_use]
    pub(crate) fn dnat(self, address: Ipv4Addr, port: u16) -> Self {
        self.push(expression::dnat(address, port))
            .says(format_args!("dnat to {address}:{port}"))
    }

    /// Replaces the connection's source by the address of the outgoing device.
    #[must_use]
    pub(crate) fn masquerade(self) -> Self {
        self.push([expression::masq()])
            .says(format_args!("masquerade"))
    }

    /// Accepts the packet: ends the chain.
    #[must_use]
    pub(crate) fn accept(self) -> Self {
        self.push([expression::verdict(1)])
            .says(format_args!("accept"))
    }

    /// Drops the packet.
    #[must_use]
    pub(crate) fn drop(self) -> Self {
        self.push([expression::verdict(0)])
            .says(format_args!("drop"))
    }

    /// Sets the comment that `nft list ruleset` shows: 253 bytes at most.
    #[must_use]
    pub(crate) fn comment(mut self, text: &str) -> Self {
        self.comment = Some(text.to_owned());
        self.says(format_args!("comment \"{text}\""))
    }

    fn says(mut self, words: fmt::Arguments<'_>) -> Self {
        self.words += &format!(" {words}");
        self
    }

    fn push<const N: usize>(mut self, expressions: [Expression; N]) -> Self {
        self.expressions.extend(expressions);
        self
    }

    fn device(self, key: MetaKey, operator: Operator, name: &str) -> Self {
        // The kernel's whole buffer is compared, so that no longer name
        // matches.
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(nix::libc::IFNAMSIZ, 0);
        self.push([expression::meta(key), expression::cmp(operator, bytes)])
    }

    fn network(self, field: Field, operator: Operator, network: Ipv4Net) -> Self {
        self.push([
            expression::payload(field),
            expression::bitwise(network.netmask().octets().to_vec()),
            expression::cmp(operator, network.network().octets().to_vec()),
        ])
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        self.push([
            expression::ct(key),
            expression::bitwise(bits.to_ne_bytes().to_vec()),
            expression::cmp(Operator::NotEqual, vec![0; 4]),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_shows_itself_as_nft_does() {
        let rule = Rule::new("forward").oifname("drydock0").ct_status_dnat();
        assert_eq!(
            rule.accept().to_string(),
            r#"forward oifname "drydock0" ct status dnat accept"#
        );
    }
}

//! The host's other packet filters. A packet passes only if none of them drops
//! it, and Drydock's rules cannot overrule theirs: a chain at the `forward`
//! hook with the policy drop cuts containers off from the outside, unless it
//! has a rule for them. Docker and ufw install such chains.

use anyhow::{Context, Result};
use netlink_packet_core::Emitable;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage,
};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use crate::nat::table::{Netfilter, TABLE, message};

/// `NF_DROP`, as a policy.
const DROP: u32 = 0;

/// A chain that drops forwarded packets, in a table without a rule about a
/// bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    family: &'static str,
    table: String,
    chain: String,
}

impl Obstacle {
    /// The warning: its effect, and the commands that let containers through.
    pub(crate) fn warning(&self, bridge: &str) -> String {
        let Obstacle {
            family,
            table,
            chain,
        } = self;
        format!(
            "the chain {chain} of table {family} {table} drops forwarded packets: containers reach \
             nothing beyond this host, and nothing reaches their ports, unless you run: \
             nft insert rule {family} {table} {chain} iifname {bridge} accept; \
             nft insert rule {family} {table} {chain} oifname {bridge} accept"
        )
    }
}

/// Lists the chains that block containers. Those of legacy iptables (module
/// `ip_tables`; today's iptables is based on nf_tables) are not visible here.
pub(crate) fn obstacles(netfilter: &mut Netfilter, bridge: &str) -> Result<Vec<Obstacle>> {
    let all = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    let chains = netfilter
        .dump(message(NetfilterProtoFamily::Unspec, all))
        .context("NFT_MSG_GETCHAIN")?;
    let mut obstacles = Vec::new();
    for chain in chains {
        let family = match chain.header.family {
            NetfilterProtoFamily::IPv4 => "ip",
            NetfilterProtoFamily::Inet => "inet",
            _ => continue,
        };
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(found)) = chain.inner else {
            continue;
        };
        if let Some((table, name)) = dropping(found)
            && table != TABLE
            && !mentions(netfilter, chain.header.family, &table, bridge)?
        {
            obstacles.push(Obstacle {
                family,
                table,
                chain: name,
            });
        }
    }
    Ok(obstacles)
}

/// The table and the name of a chain that drops forwarded packets.
fn dropping(message: ChainMessage) -> Option<(String, String)> {
    let forward = Hook::Number(HookNumber::Inet(InetHookNumber::Forward));
    let (mut table, mut name, mut drops, mut forwards) = (None, None, false, false);
    for attribute in message.attributes {
        match attribute {
            ChainAttribute::Table(text) => table = Some(text),
            ChainAttribute::Name(text) => name = Some(text),
            ChainAttribute::Policy(policy) => drops = policy == DROP,
            ChainAttribute::Hook(hook) => forwards = hook.contains(&forward),
            _ => {}
        }
    }
    (drops && forwards).then_some((table?, name?))
}

/// Whether any rule of the table mentions the bridge: it may be in the chain
/// itself, or in one that it jumps to.
fn mentions(
    netfilter: &mut Netfilter,
    family: NetfilterProtoFamily,
    table: &str,
    bridge: &str,
) -> Result<bool> {
    let request = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![RuleAttribute::Table(table.to_owned())],
    });
    let rules = netfilter
        .dump(message(family, request))
        .context("NFT_MSG_GETRULE")?;
    Ok(rules.into_iter().any(|rule| {
        let mut bytes = vec![0; rule.buffer_len()];
        rule.emit(&mut bytes);
        bytes
            .windows(bridge.len())
            .any(|window| window == bridge.as_bytes())
    }))
}

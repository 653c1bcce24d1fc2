//! Drydock's table in nf_tables (nft(8)), and the transactions that change it.
//!
//! A transaction (`NFNL_MSG_BATCH_BEGIN` … `NFNL_MSG_BATCH_END`) takes effect
//! as a whole or not at all, so a launcher that is killed never leaves half of
//! one.

use anyhow::{Context, Result};
use kit::errno::errno_of;
use kit::say;
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::kernel::netlink::{Client, unless};
use crate::nat::rule::Rule;

/// The name of the table. Its family is `ip`, so it sees IPv4 only.
pub(crate) const TABLE: &str = "drydock";

/// `NFTNL_UDATA_RULE_COMMENT` of libnftnl: how `nft` stores a rule's comment.
const UDATA_COMMENT: u8 = 0;

/// A connection to the kernel's packet filters and connection tracking, for the
/// network namespace in which it was opened.
///
/// A launcher uses one for all its work: closing it waits until the kernel has
/// freed what was deleted through it, 10 ms and more each time.
pub(crate) type Netfilter = Client<NetfilterMessage>;

/// Opens a connection for the caller's network namespace.
pub(crate) fn netfilter_client() -> Result<Netfilter> {
    Client::new(NETLINK_NETFILTER)
}

/// A netfilter message for one address family.
pub(crate) fn message(
    family: NetfilterProtoFamily,
    inner: impl Into<NetfilterMessageInner>,
) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

/// A chain that the kernel calls at one of its hooks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseChain {
    /// The chain's name, by which rules refer to it.
    pub name: &'static str,
    /// The chain's type: `filter` or `nat`.
    pub kind: &'static str,
    /// The hook: the point on a packet's way.
    pub hook: InetHookNumber,
    /// The order among the chains of that hook: the lowest runs first.
    pub priority: i32,
}

/// Changes to the table that take effect together.
#[derive(Default)]
pub(crate) struct Transaction {
    messages: Vec<(NetfilterMessage, u16)>,
}

impl Transaction {
    /// An empty transaction.
    pub(crate) fn new() -> Self {
        Transaction::default()
    }

    /// Creates the table, empty, whether or not it existed: `nft add table`,
    /// `delete table`, `add table`.
    #[must_use]
    pub(crate) fn fresh_table(mut self) -> Self {
        self.push(NfTablesMessage::NewTable(table()), NLM_F_CREATE);
        self.push(NfTablesMessage::DeleteTable(table()), 0);
        self.push(NfTablesMessage::NewTable(table()), NLM_F_CREATE);
        self
    }

    /// Adds a chain to the table, with the policy accept.
    #[must_use]
    pub(crate) fn chain(mut self, chain: BaseChain) -> Self {
        let BaseChain {
            name,
            kind,
            hook,
            priority,
        } = chain;
        say!(
            "nft add chain ip {TABLE} {name} {{ type {kind} hook {hook:?} priority {priority}; }}"
        );
        let attributes = vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Type(kind.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(hook.into()),
                Hook::Priority(priority.cast_unsigned()),
            ]),
        ];
        self.push(
            NfTablesMessage::NewChain(ChainMessage { attributes }),
            NLM_F_CREATE,
        );
        self
    }

    /// Appends a rule to its chain.
    #[must_use]
    pub(crate) fn rule(mut self, rule: Rule) -> Self {
        say!("nft add rule ip {TABLE} {rule}");
        let mut attributes = vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(rule.chain.to_owned()),
            RuleAttribute::Expressions(rule.expressions),
        ];
        attributes.extend(rule.comment.as_deref().map(userdata));
        self.push(
            NfTablesMessage::NewRule(RuleMessage { attributes }),
            NLM_F_CREATE | NLM_F_APPEND,
        );
        self
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; `ENOENT` if the table, a chain or a
    /// rule to be removed is missing, or if the kernel lacks an expression.
    pub(crate) fn commit(self, netfilter: &mut Netfilter) -> Result<()> {
        let Some(last) = self.messages.len().checked_sub(1) else {
            return Ok(());
        };
        let mark = |control| {
            let mut message = message(NetfilterProtoFamily::Unspec, control);
            message.header.res_id = nix::libc::NFNL_SUBSYS_NFTABLES as u16;
            (message, 0)
        };
        let mut batch = vec![mark(ControlMessage::BatchBegin)];
        // Every message can be refused, so one acknowledgement is enough.
        let messages = self.messages.into_iter().enumerate();
        batch.extend(messages.map(|(n, (message, flags))| match n == last {
            true => (message, flags | NLM_F_ACK),
            false => (message, flags),
        }));
        batch.push(mark(ControlMessage::BatchEnd));
        netfilter
            .batch(batch)
            .with_context(|| format!("nf_tables: transaction on table ip {TABLE}"))
    }

    fn push(&mut self, inner: NfTablesMessage, flags: u16) {
        let message = message(NetfilterProtoFamily::IPv4, inner);
        self.messages.push((message, flags));
    }
}

fn table() -> TableMessage {
    TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    }
}

/// A comment in nft's form: type, length, the text with its NUL.
fn userdata(comment: &str) -> RuleAttribute {
    let mut bytes = vec![UDATA_COMMENT, (comment.len() + 1) as u8];
    bytes.extend(comment.as_bytes());
    bytes.push(0);
    RuleAttribute::UserData(bytes)
}

/// Whether the table exists: `nft list table ip drydock`.
pub(crate) fn exists(netfilter: &mut Netfilter) -> Result<bool> {
    let request = message(
        NetfilterProtoFamily::IPv4,
        NfTablesMessage::GetTable(table()),
    );
    let found = netfilter.get(request).context("NFT_MSG_GETTABLE")?;
    Ok(found.is_some())
}

/// Deletes the table and its content: `nft delete table ip drydock`. A missing
/// table counts as deleted.
pub(crate) fn delete(netfilter: &mut Netfilter) -> Result<()> {
    let mut transaction = Transaction::new();
    transaction.push(NfTablesMessage::DeleteTable(table()), 0);
    unless(Errno::ENOENT, transaction.commit(netfilter))
}

/// Deletes the rules with this comment, in one transaction. Missing rules, or a
/// missing table, are no error.
pub(crate) fn delete_rules(netfilter: &mut Netfilter, comment: &str) -> Result<()> {
    let request = message(
        NetfilterProtoFamily::IPv4,
        NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![RuleAttribute::Table(TABLE.to_owned())],
        }),
    );
    let rules = match netfilter.dump(request) {
        Err(error) if errno_of(&error) == Some(Errno::ENOENT) => return Ok(()),
        rules => rules.context("NFT_MSG_GETRULE")?,
    };
    let tag = userdata(comment);
    let mut transaction = Transaction::new();
    for rule in rules {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = rule.inner else {
            continue;
        };
        if !rule.attributes.contains(&tag) {
            continue;
        }
        // A rule is identified by its table, chain and handle.
        let attributes = rule
            .attributes
            .into_iter()
            .filter(|attribute| {
                matches!(
                    attribute,
                    RuleAttribute::Table(_) | RuleAttribute::Chain(_) | RuleAttribute::Handle(_)
                )
            })
            .collect();
        transaction.push(NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0);
    }
    unless(Errno::ENOENT, transaction.commit(netfilter))
}

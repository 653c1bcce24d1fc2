//! A packet filter as another program would install it: nft(8), netlink(7).

use anyhow::{Context, Result, anyhow};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, NfTablesMessage, TableAttribute,
    TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// The name of the table. Its family is `ip`.
pub const TABLE: &str = "somebody";

/// Adds the table, with a chain FORWARD that drops all forwarded packets:
/// `nft add chain ip somebody FORWARD { type filter hook forward priority 0; policy drop; }`.
pub fn drop_forwarded() -> Result<()> {
    const NF_DROP: u32 = 0;
    let table = NfTablesMessage::NewTable(TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    });
    let chain = NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name("FORWARD".to_owned()),
            ChainAttribute::Type("filter".to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(InetHookNumber::Forward.into()),
                Hook::Priority(0),
            ]),
            ChainAttribute::Policy(NF_DROP),
        ],
    });
    transaction(vec![table, chain]).context("nft add chain")
}

/// Removes the table.
pub fn remove() -> Result<()> {
    let table = NfTablesMessage::DeleteTable(TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    });
    transaction(vec![table]).context("nft delete table")
}

fn transaction(messages: Vec<NfTablesMessage>) -> Result<()> {
    let mark = |control: ControlMessage| {
        let mut mark = message(NetfilterProtoFamily::Unspec, control);
        mark.header.res_id = libc::NFNL_SUBSYS_NFTABLES as u16;
        serialize(mark, 0)
    };
    let mut bytes = mark(ControlMessage::BatchBegin);
    let last = messages.len() - 1;
    for (n, inner) in messages.into_iter().enumerate() {
        let ack = if n == last { NLM_F_ACK } else { 0 };
        bytes.extend(serialize(
            message(NetfilterProtoFamily::IPv4, inner),
            NLM_F_CREATE | ack,
        ));
    }
    bytes.extend(mark(ControlMessage::BatchEnd));
    let socket = Socket::new(NETLINK_NETFILTER).context("socket(NETLINK_NETFILTER)")?;
    socket
        .send_to(&bytes, &SocketAddr::new(0, 0), 0)
        .context("sendto(NETLINK_NETFILTER)")?;
    let (answer, _) = socket
        .recv_from_full()
        .context("recvfrom(NETLINK_NETFILTER)")?;
    let answer = NetlinkMessage::<NetfilterMessage>::deserialize(&answer)
        .map_err(|error| anyhow!("an answer of nf_tables: {error}"))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io().into()),
        _ => Ok(()),
    }
}

fn message(
    family: NetfilterProtoFamily,
    inner: impl Into<NetfilterMessageInner>,
) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

fn serialize(message: NetfilterMessage, flags: u16) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags | NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

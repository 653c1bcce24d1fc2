//! nf_tables(8) from Rust: rules, built of the kernel's expressions, and the
//! transactions that install them.
//!
//! A rule is a small program. Its expressions run from left to right on a
//! packet, with registers between them: one loads a part of the packet or what
//! the kernel knows about it, the next compares it, and where the comparison
//! fails the rule is over. The words of `nft` are the names of the methods of
//! [`Rule`], and a rule shows itself as `nft` would write it.
//!
//! The messages are those of `netlink-packet-netfilter`. It has no types for
//! the expressions `nat`, `masq`, `ct` and `fib`; these are put together here,
//! of the attributes in `linux/netfilter/nf_tables.h`.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::publish::Protocol;

type Expression = ListAttribute<ExpressionAttribute>;

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Offsets in the headers of IPv4 (RFC 791), and of TCP and UDP alike.
const SOURCE_ADDRESS: u32 = 12;
const DESTINATION_ADDRESS: u32 = 16;
const DESTINATION_PORT: u32 = 2;
/// `RTN_LOCAL` of rtnetlink(7): an address of this host.
const RTN_LOCAL: u32 = 2;
/// Bits of `ct state`: `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and `(IP_CT_RELATED)`.
const ESTABLISHED_RELATED: u32 = 2 | 4;
/// Bit of `ct status`: `IPS_DST_NAT`.
const DST_NAT: u32 = 32;

/// A rule: the chain it belongs to, what it looks for, what it does.
///
/// ```
/// use net::nftables::Rule;
/// let rule = Rule::new("forward").oifname("drydock0").ct_status_dnat().accept();
/// assert_eq!(rule.to_string(), r#"forward oifname "drydock0" ct status dnat accept"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
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
    /// The empty rule, for the end of a chain.
    pub fn new(chain: &'static str) -> Self {
        Rule {
            chain,
            expressions: Vec::new(),
            comment: None,
            words: String::new(),
        }
    }

    /// The packet came in by the device `name`.
    #[must_use]
    pub fn iifname(self, name: &str) -> Self {
        self.device(MetaKey::Iifname, Operator::Equal, name)
            .says(format_args!("iifname \"{name}\""))
    }

    /// The packet came in by another device than `name`, or is the host's own.
    #[must_use]
    pub fn iifname_not(self, name: &str) -> Self {
        self.device(MetaKey::Iifname, Operator::NotEqual, name)
            .says(format_args!("iifname != \"{name}\""))
    }

    /// The packet goes out by the device `name`.
    #[must_use]
    pub fn oifname(self, name: &str) -> Self {
        self.device(MetaKey::Oifname, Operator::Equal, name)
            .says(format_args!("oifname \"{name}\""))
    }

    /// The packet goes out by another device than `name`.
    #[must_use]
    pub fn oifname_not(self, name: &str) -> Self {
        self.device(MetaKey::Oifname, Operator::NotEqual, name)
            .says(format_args!("oifname != \"{name}\""))
    }

    /// Its source address is in `network`.
    #[must_use]
    pub fn ip_saddr(self, network: Ipv4Net) -> Self {
        self.network(SOURCE_ADDRESS, Operator::Equal, network)
            .says(format_args!("ip saddr {network}"))
    }

    /// Its destination address is in `network`.
    #[must_use]
    pub fn ip_daddr(self, network: Ipv4Net) -> Self {
        self.network(DESTINATION_ADDRESS, Operator::Equal, network)
            .says(format_args!("ip daddr {network}"))
    }

    /// Its destination address is outside `network`.
    #[must_use]
    pub fn ip_daddr_not(self, network: Ipv4Net) -> Self {
        self.network(DESTINATION_ADDRESS, Operator::NotEqual, network)
            .says(format_args!("ip daddr != {network}"))
    }

    /// Its destination is one of the host's own addresses, whichever.
    #[must_use]
    pub fn fib_daddr_local(self) -> Self {
        const NFTA_FIB_DREG: u16 = 1;
        const NFTA_FIB_RESULT: u16 = 2;
        const NFTA_FIB_FLAGS: u16 = 3;
        const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
        const NFTA_FIB_F_DADDR: u32 = 2;
        self.other(
            "fib",
            vec![
                number(NFTA_FIB_DREG, Register::Reg1.into()),
                number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
                number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR),
            ],
        )
        .compare(Operator::Equal, RTN_LOCAL.to_ne_bytes().to_vec())
        .says(format_args!("fib daddr type local"))
    }

    /// It is of this protocol, and for this port.
    #[must_use]
    pub fn dport(self, protocol: Protocol, port: u16) -> Self {
        self.meta(MetaKey::L4Proto)
            .compare(Operator::Equal, vec![protocol.number()])
            .payload(TRANSPORT_HEADER, DESTINATION_PORT, 2)
            .compare(Operator::Equal, port.to_be_bytes().to_vec())
            .says(format_args!("{protocol} dport {port}"))
    }

    /// It belongs to a connection that was let through before, or is an error
    /// message about one.
    #[must_use]
    pub fn ct_state_established_related(self) -> Self {
        const NFT_CT_STATE: u32 = 0;
        self.connection(NFT_CT_STATE, ESTABLISHED_RELATED)
            .says(format_args!("ct state established,related"))
    }

    /// It belongs to a connection whose destination was rewritten: for us, one
    /// to a published port.
    #[must_use]
    pub fn ct_status_dnat(self) -> Self {
        const NFT_CT_STATUS: u32 = 2;
        self.connection(NFT_CT_STATUS, DST_NAT)
            .says(format_args!("ct status dnat"))
    }

    /// Sends the connection to another address and port.
    #[must_use]
    pub fn dnat(mut self, address: Ipv4Addr, port: u16) -> Self {
        const NFTA_NAT_TYPE: u16 = 1;
        const NFTA_NAT_FAMILY: u16 = 2;
        const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
        const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
        const NFT_NAT_DNAT: u32 = 1;
        const NFPROTO_IPV4: u32 = 2;
        self.expressions.extend([
            immediate(Register::Reg1, address.octets().to_vec()),
            immediate(Register::Reg2, port.to_be_bytes().to_vec()),
        ]);
        self.other(
            "nat",
            vec![
                number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
                number(NFTA_NAT_FAMILY, NFPROTO_IPV4),
                number(NFTA_NAT_REG_ADDR_MIN, Register::Reg1.into()),
                number(NFTA_NAT_REG_PROTO_MIN, Register::Reg2.into()),
            ],
        )
        .says(format_args!("dnat to {address}:{port}"))
    }

    /// Gives the connection the address of the outgoing device as its source.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.other("masq", Vec::new())
            .says(format_args!("masquerade"))
    }

    /// Ends the chain: the packet may pass.
    #[must_use]
    pub fn accept(self) -> Self {
        const NF_ACCEPT: u32 = 1;
        self.verdict(NF_ACCEPT).says(format_args!("accept"))
    }

    /// Ends everything: the packet is gone.
    #[must_use]
    pub fn drop(self) -> Self {
        const NF_DROP: u32 = 0;
        self.verdict(NF_DROP).says(format_args!("drop"))
    }

    /// A remark, shown by `nft list ruleset`: 253 bytes at most.
    #[must_use]
    pub fn comment(mut self, text: &str) -> Self {
        self.comment = Some(text.to_owned());
        self.says(format_args!("comment \"{text}\""))
    }

    fn says(mut self, words: fmt::Arguments<'_>) -> Self {
        self.words += &format!(" {words}");
        self
    }

    fn push(mut self, expression: Expressions) -> Self {
        self.expressions.push(expression.into());
        self
    }

    fn device(self, key: MetaKey, operator: Operator, name: &str) -> Self {
        // The whole of the kernel's buffer, so that no longer name matches.
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(nix::libc::IFNAMSIZ, 0);
        self.meta(key).compare(operator, bytes)
    }

    fn network(self, offset: u32, operator: Operator, network: Ipv4Net) -> Self {
        let loaded = self.payload(NETWORK_HEADER, offset, 4);
        let masked = match network.prefix_len() {
            32 => loaded,
            _ => loaded.mask(network.netmask().octets().to_vec()),
        };
        masked.compare(operator, network.network().octets().to_vec())
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        const NFTA_CT_DREG: u16 = 1;
        const NFTA_CT_KEY: u16 = 2;
        self.other(
            "ct",
            vec![
                number(NFTA_CT_DREG, Register::Reg1.into()),
                number(NFTA_CT_KEY, key),
            ],
        )
        .mask(bits.to_ne_bytes().to_vec())
        .compare(Operator::NotEqual, vec![0; 4])
    }

    fn meta(self, key: MetaKey) -> Self {
        self.push(Expressions::Meta(vec![
            Meta::Key(key),
            Meta::DestinationRegister(Register::Reg1),
        ]))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.push(Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ]))
    }

    fn mask(self, mask: Vec<u8>) -> Self {
        self.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(mask.len() as u32),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
            Bitwise::Mask(DataAttribute::Value(mask)),
        ]))
    }

    fn compare(self, operator: Operator, value: Vec<u8>) -> Self {
        self.push(Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(operator),
            Cmp::Data(DataAttribute::Value(value)),
        ]))
    }

    fn verdict(self, code: u32) -> Self {
        self.push(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
                Verdict::Other(code),
            )])),
        ]))
    }

    fn other(self, name: &str, attributes: Vec<DefaultNla>) -> Self {
        self.push(Expressions::Other {
            expression_type: name.to_owned(),
            attributes,
        })
    }
}

fn immediate(register: Register, value: Vec<u8>) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register),
        Immediate::Data(DataAttribute::Value(value)),
    ])
    .into()
}

/// A number in network byte order, as nf_tables wants all of its own.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

//! The expressions of nf_tables, of which rules consist.
//!
//! An expression loads a value into a register, changes a register, compares
//! one and ends the rule if that fails, or acts. One register is enough for all
//! but `nat`. `netlink-packet-netfilter` has no types for `ct`, `fib`, `masq`
//! and `nat`; they are composed here, of the attributes that
//! `linux/netfilter/nf_tables.h` lists.

use std::net::Ipv4Addr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

pub(crate) type Expression = ListAttribute<ExpressionAttribute>;

/// The register that one expression loads and the next reads.
const REGISTER: Register = Register::Reg1;

/// A field of a packet: its header, its offset and its length in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    /// `NFT_PAYLOAD_NETWORK_HEADER` (1) or `NFT_PAYLOAD_TRANSPORT_HEADER` (2).
    base: u32,
    offset: u32,
    length: u32,
}

/// Fields of IPv4 (RFC 791), and of TCP and UDP alike.
pub(crate) const SOURCE_ADDRESS: Field = Field {
    base: 1,
    offset: 12,
    length: 4,
};
pub(crate) const DESTINATION_ADDRESS: Field = Field {
    base: 1,
    offset: 16,
    length: 4,
};
pub(crate) const DESTINATION_PORT: Field = Field {
    base: 2,
    offset: 2,
    length: 2,
};

/// `NFT_CT_STATE` and `NFT_CT_STATUS`.
pub(crate) const CT_STATE: u32 = 0;
pub(crate) const CT_STATUS: u32 = 2;

/// Loads a field of the packet.
pub(crate) fn payload(field: Field) -> Expression {
    Expressions::Payload(vec![
        Payload::DestinationRegister(REGISTER),
        Payload::Base(field.base),
        Payload::Offset(field.offset),
        Payload::Len(field.length),
    ])
    .into()
}

/// Loads a property of the packet outside its contents, such as its device.
pub(crate) fn meta(key: MetaKey) -> Expression {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(REGISTER)]).into()
}

/// Loads a property of the packet's connection.
pub(crate) fn ct(key: u32) -> Expression {
    const NFTA_CT_DREG: u16 = 1;
    const NFTA_CT_KEY: u16 = 2;
    other(
        "ct",
        vec![
            number(NFTA_CT_DREG, REGISTER.into()),
            number(NFTA_CT_KEY, key),
        ],
    )
}

/// Loads the type of the destination address by the routing tables (fib):
/// `RTN_LOCAL` and so on of rtnetlink(7).
pub(crate) fn fib_daddr_type() -> Expression {
    const NFTA_FIB_DREG: u16 = 1;
    const NFTA_FIB_RESULT: u16 = 2;
    const NFTA_FIB_FLAGS: u16 = 3;
    const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
    const NFTA_FIB_F_DADDR: u32 = 2;
    other(
        "fib",
        vec![
            number(NFTA_FIB_DREG, REGISTER.into()),
            number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
            number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR),
        ],
    )
}

/// Keeps the bits of `mask`.
pub(crate) fn bitwise(mask: Vec<u8>) -> Expression {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(REGISTER),
        Bitwise::DestinationRegister(REGISTER),
        Bitwise::Length(mask.len() as u32),
        Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        Bitwise::Mask(DataAttribute::Value(mask)),
    ])
    .into()
}

/// Ends the rule, unless the comparison holds.
pub(crate) fn cmp(operator: Operator, value: Vec<u8>) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(REGISTER),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
    .into()
}

/// Ends the chain: 1 accepts the packet (`NF_ACCEPT`), 0 drops it (`NF_DROP`).
pub(crate) fn verdict(code: u32) -> Expression {
    let verdict = VerdictAttribute::Code(Verdict::Other(code));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![verdict])),
    ])
    .into()
}

/// Rewrites the destination of the connection.
pub(crate) fn dnat(address: Ipv4Addr, port: u16) -> [Expression; 3] {
    const NFTA_NAT_TYPE: u16 = 1;
    const NFTA_NAT_FAMILY: u16 = 2;
    const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
    const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
    const NFT_NAT_DNAT: u32 = 1;
    const NFPROTO_IPV4: u32 = 2;
    let (to, to_port) = (Register::Reg1, Register::Reg2);
    [
        load(to, address.octets().to_vec()),
        load(to_port, port.to_be_bytes().to_vec()),
        other(
            "nat",
            vec![
                number(NFTA_NAT_TYPE, NFT_NAT_DNAT),
                number(NFTA_NAT_FAMILY, NFPROTO_IPV4),
                number(NFTA_NAT_REG_ADDR_MIN, to.into()),
                number(NFTA_NAT_REG_PROTO_MIN, to_port.into()),
            ],
        ),
    ]
}

/// Rewrites the source of the connection to the address of the outgoing device.
pub(crate) fn masq() -> Expression {
    other("masq", Vec::new())
}

fn load(register: Register, value: Vec<u8>) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register),
        Immediate::Data(DataAttribute::Value(value)),
    ])
    .into()
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expression {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
    .into()
}

/// An attribute with a number in network byte order, which nf_tables uses for
/// its own.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

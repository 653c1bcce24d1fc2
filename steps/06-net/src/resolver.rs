//! The sockets of a container's resolver: in its network namespace, held by a
//! process outside.
//!
//! A container asks 127.0.0.11, port 53. The sockets have other ports there, and
//! a rule of the container's packet filter leads to them: port 53 of all
//! addresses stays free, for a container that is itself a name server. Docker
//! does the same.

use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use kit::say;
use netlink_packet_netfilter::nftables::InetHookNumber;
use nix::unistd::Pid;

use crate::kernel::within::within;
use crate::names::resolv::RESOLVER;
use crate::nat::protocol::Protocol;
use crate::nat::rule::Rule;
use crate::nat::table::{self, BaseChain, Transaction};

/// The port of name servers.
const PORT: u16 = 53;

/// The chain for packets that the container itself sends, `dstnat`.
const OUTPUT: BaseChain = BaseChain {
    name: "output",
    kind: "nat",
    hook: InetHookNumber::LocalOut,
    priority: -100,
};

/// The sockets at which a container asks for names. They do not block.
#[derive(Debug)]
pub struct Sockets {
    /// For questions in datagrams.
    pub udp: UdpSocket,
    /// For questions over connections.
    pub tcp: TcpListener,
}

/// Opens the sockets in the network namespace of the process `pid`, whose
/// loopback device is up.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over the namespace.
pub fn open(pid: Pid) -> Result<Sockets> {
    let opened = within(pid, &mut || {
        let any = SocketAddrV4::new(RESOLVER, 0);
        let udp = UdpSocket::bind(any).with_context(|| format!("bind({any}/udp)"))?;
        let tcp = TcpListener::bind(any).with_context(|| format!("bind({any}/tcp)"))?;
        udp.set_nonblocking(true).context("O_NONBLOCK")?;
        tcp.set_nonblocking(true).context("O_NONBLOCK")?;
        let port = |address: std::io::Result<std::net::SocketAddr>| {
            address.map(|address| address.port()).context("getsockname")
        };
        lead(port(udp.local_addr())?, port(tcp.local_addr())?)?;
        Ok(vec![OwnedFd::from(udp), OwnedFd::from(tcp)])
    })?;
    let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(opened) else {
        bail!("the sockets of the resolver have not come");
    };
    say!("names are resolved at {RESOLVER}");
    Ok(Sockets {
        udp: udp.into(),
        tcp: tcp.into(),
    })
}

/// Leads port 53 of the resolver's address to these ports.
fn lead(udp: u16, tcp: u16) -> Result<()> {
    let mut transaction = Transaction::new().fresh_table().chain(OUTPUT);
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        transaction = transaction.rule(
            Rule::new(OUTPUT.name)
                .ip_daddr(RESOLVER.into())
                .dport(protocol, PORT)
                .dnat(RESOLVER, port),
        );
    }
    transaction.commit(&mut table::netfilter_client()?)
}

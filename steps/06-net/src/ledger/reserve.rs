//! Reservation of a host port for a container (bind(2), socket(7)).
//!
//! The packet filter would direct the connections to the container even if
//! another process listens on the port. So the launcher binds a socket to it,
//! on which nobody ever listens: this shows whether the port is free, and
//! reserves it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};
use procfs::net::TcpState;
use procfs::process::{FDTarget, all_processes};

use crate::nat::protocol::Protocol;
use crate::nat::publish::Publish;

/// Reserves the port until the descriptor is closed.
///
/// # Errors
/// `EADDRINUSE` with the name of the process that has it, if /proc shows it;
/// `EADDRNOTAVAIL` if the address is not the host's; `EACCES` for a port below
/// `net.ipv4.ip_unprivileged_port_start` without `CAP_NET_BIND_SERVICE`.
pub(crate) fn reserve(publish: &Publish) -> Result<OwnedFd> {
    let kind = match publish.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)
        .context("socket(AF_INET)")?;
    if publish.protocol == Protocol::Tcp {
        // Only for the duration of bind(2): the remains of a connection that an
        // earlier server closed (TIME_WAIT) are harmless.
        setsockopt(&socket, sockopt::ReuseAddr, &true).context("setsockopt(SO_REUSEADDR)")?;
    }
    match bind(socket.as_raw_fd(), &SockaddrIn::from(publish.host())) {
        Ok(()) => {}
        Err(Errno::EADDRINUSE) => bail!(
            "port {}/{} of the host is taken{}: choose another one",
            publish.host_port,
            publish.protocol,
            holder(publish)
                .map(|holder| format!(" by {holder}"))
                .unwrap_or_default()
        ),
        Err(Errno::EADDRNOTAVAIL) => bail!(
            "{} is not an address of this host: `ip address` shows its addresses",
            publish.ip
        ),
        Err(errno) => {
            return Err(errno).with_context(|| format!("bind({})", publish.host()));
        }
    }
    if publish.protocol == Protocol::Tcp {
        setsockopt(&socket, sockopt::ReuseAddr, &false).context("setsockopt(SO_REUSEADDR)")?;
    }
    Ok(socket)
}

/// Chooses and reserves a port for each of those that are open: any free one of
/// its range, or one that the kernel picks. Returns all, in their order, and the
/// sockets of those that were open.
///
/// `taken` are the ports of other containers. Their sockets are not enough:
/// before Linux 6.18 a second one that is bound with SO_REUSEADDR gets the port
/// of the first, if that one had it too at that time.
///
/// # Errors
/// If a range has no free port.
pub(crate) fn choose(
    wanted: &[Publish],
    taken: &[Publish],
) -> Result<(Vec<Publish>, Vec<OwnedFd>)> {
    let mut sockets = Vec::new();
    let mut chosen = Vec::new();
    for port in wanted {
        if !port.is_open() {
            chosen.push(*port);
            continue;
        }
        let last = port.to.unwrap_or(port.host_port);
        let mut why = None;
        let found = (port.host_port..=last).find_map(|number| {
            let one = Publish {
                host_port: number,
                to: None,
                ..*port
            };
            // A fixed one of the same container goes before.
            let mut others = wanted.iter().chain(taken).chain(&chosen);
            if others.any(|other| other.clashes_with(&one)) {
                return None;
            }
            match reserve(&one).and_then(|socket| Ok((port_of(&socket)?, socket))) {
                Ok((host_port, socket)) => Some((Publish { host_port, ..one }, socket)),
                Err(error) => {
                    why = Some(error);
                    None
                }
            }
        });
        match (found, why) {
            (Some((one, socket)), _) => {
                chosen.push(one);
                sockets.push(socket);
            }
            (None, Some(error)) if port.host_port == last => return Err(error),
            (None, _) => bail!(
                "no port from {} to {last}/{} of the host is free",
                port.host_port,
                port.protocol
            ),
        }
    }
    Ok((chosen, sockets))
}

/// The port to which a socket is bound.
fn port_of(socket: &OwnedFd) -> Result<u16> {
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).context("getsockname")?;
    Ok(address.port())
}

/// The process that has a socket on the port, as text: `process 812 (nginx)`.
fn holder(publish: &Publish) -> Option<String> {
    let inodes = inodes(publish).unwrap_or_default();
    let processes = all_processes().ok()?;
    processes.flatten().find_map(|process| {
        let holds = process.fd().ok()?.flatten().any(|fd| match fd.target {
            FDTarget::Socket(inode) => inodes.contains(&inode),
            _ => false,
        });
        let name = process.stat().ok()?.comm;
        holds.then(|| format!("process {} ({name})", process.pid()))
    })
}

/// The inodes of the sockets that occupy the port. Of TCP only listening
/// sockets do.
fn inodes(publish: &Publish) -> io::Result<Vec<u64>> {
    use procfs::net::{tcp, tcp6, udp, udp6};
    let sockets: Vec<_> = match publish.protocol {
        Protocol::Tcp => [tcp(), tcp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|socket| socket.state == TcpState::Listen)
            .map(|socket| (socket.local_address, socket.inode))
            .collect(),
        Protocol::Udp => [udp(), udp6()]
            .into_iter()
            .flatten()
            .flatten()
            .map(|socket| (socket.local_address, socket.inode))
            .collect(),
    };
    let in_the_way = |ip: IpAddr| {
        ip.is_unspecified() || publish.ip.is_unspecified() || ip.to_canonical() == publish.ip
    };
    Ok(sockets
        .into_iter()
        .filter(|(address, _)| address.port() == publish.host_port && in_the_way(address.ip()))
        .map(|(_, inode)| inode)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    fn on_loopback(host_port: u16, protocol: Protocol) -> Publish {
        Publish {
            ip: Ipv4Addr::LOCALHOST,
            host_port,
            to: None,
            port: 80,
            protocol,
        }
    }

    #[test]
    fn a_listener_keeps_its_port_and_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = reserve(&on_loopback(port, Protocol::Tcp)).unwrap_err();
        let named = format!("by process {}", std::process::id());
        assert!(error.to_string().contains(&named), "{error}");
    }

    #[test]
    fn a_port_is_reserved_once_and_nobody_can_listen_there() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let first = reserve(&on_loopback(port, Protocol::Tcp)).unwrap();
        assert!(reserve(&on_loopback(port, Protocol::Tcp)).is_err());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        drop(first);
        assert!(reserve(&on_loopback(port, Protocol::Tcp)).is_ok());
    }

    #[test]
    fn a_free_port_of_a_range_is_chosen() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = taken.local_addr().unwrap().port();
        if first == u16::MAX {
            return;
        }
        let range = Publish {
            to: Some(first.saturating_add(20)),
            ..on_loopback(first, Protocol::Tcp)
        };
        let (chosen, sockets) = choose(&[range, on_loopback(0, Protocol::Udp)], &[]).unwrap();
        assert_eq!(sockets.len(), 2);
        assert!(chosen.iter().all(|one| !one.is_open()), "{chosen:?}");
        assert!(chosen[0].host_port > first);
        let only = Publish {
            to: Some(first),
            ..range
        };
        assert!(choose(&[only], &[]).is_err());
        // One of another container, and one of its own.
        let twice = [chosen[0], range, range];
        drop(sockets);
        let (chosen, _sockets) = choose(&twice, &[chosen[0]]).unwrap();
        let ports = chosen.iter().map(|one| one.host_port);
        assert_eq!(ports.collect::<std::collections::BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn udp_has_ports_of_its_own() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(reserve(&on_loopback(port, Protocol::Udp)).is_err());
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let mut publish = on_loopback(8080, Protocol::Tcp);
        publish.ip = Ipv4Addr::new(203, 0, 113, 1);
        let error = reserve(&publish).unwrap_err().to_string();
        assert!(error.contains("not an address of this host"), "{error}");
    }
}

//! `probe` in a network: lists the devices, serves, and asks.

use std::io::ErrorKind::{TimedOut, WouldBlock};
use std::io::{self, BufRead, BufReader, Read, Write, stdin};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use check::rtnl;
use check::seen::{Device, Network};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The devices with their addresses, and the default gateway.
pub(crate) fn look() -> Result<Network> {
    let mut network = Network::default();
    for entry in getifaddrs().context("getifaddrs")? {
        let device: &mut Device = network.devices.entry(entry.interface_name).or_default();
        device.up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            device.addresses.push(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            device.addresses.push(v6.ip().into());
        } else if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            device.mac = mac;
        }
    }
    network.gateway = gateway();
    Ok(network)
}

/// The gateway of the route to 0.0.0.0, from /proc/self/net/route: hexadecimal,
/// in the machine's byte order.
fn gateway() -> Option<Ipv4Addr> {
    let routes = std::fs::read_to_string("/proc/self/net/route").ok()?;
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "00000000", gateway, ..] => {
                let bytes = u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes();
                Some(Ipv4Addr::from(bytes))
            }
            _ => None,
        }
    })
}

/// Answers every asker with `word` and the asker's address, until standard
/// input ends. Calls `ready` as soon as the ports are bound.
pub(crate) fn serve(port: u16, word: &str, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    // The IPv6 address accepts IPv4 too; without IPv6, bind the IPv4 one.
    let any = |v6: bool| -> SocketAddr {
        match v6 {
            true => (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            false => (Ipv4Addr::UNSPECIFIED, port).into(),
        }
    };
    let tcp = TcpListener::bind(any(true)).or_else(|_| TcpListener::bind(any(false)))?;
    let udp = UdpSocket::bind(any(true)).or_else(|_| UdpSocket::bind(any(false)))?;
    let answer = |word: &str, from: SocketAddr| format!("{word} {}\n", from.ip().to_canonical());
    let (streams, datagrams) = (word.to_owned(), word.to_owned());
    thread::spawn(move || -> io::Result<()> {
        loop {
            let (mut stream, from) = tcp.accept()?;
            if stream.write_all(answer(&streams, from).as_bytes()).is_err() {
                // The asker has gone away and needs no answer.
            }
        }
    });
    thread::spawn(move || -> io::Result<()> {
        loop {
            let (_, from) = udp.recv_from(&mut [0; 16])?;
            if udp
                .send_to(answer(&datagrams, from).as_bytes(), from)
                .is_err()
            {
                // As above.
            }
        }
    });
    ready()?;
    io::copy(&mut stdin().lock(), &mut io::sink()).context("read standard input")?;
    Ok(())
}

/// Asks a server and returns its answer. Silence becomes `ETIMEDOUT`.
pub(crate) fn talk(
    udp: bool,
    to: SocketAddr,
    from_port: u16,
    patience: Duration,
) -> io::Result<String> {
    let silence = || io::Error::from_raw_os_error(Errno::ETIMEDOUT as i32);
    match ask(udp, to, from_port, patience) {
        Ok(text) if text.is_empty() => Err(silence()),
        Err(error) if matches!(error.kind(), TimedOut | WouldBlock) => Err(silence()),
        answer => answer,
    }
}

fn ask(udp: bool, to: SocketAddr, from_port: u16, patience: Duration) -> io::Result<String> {
    let mut text = String::new();
    if udp {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, from_port))?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes)?;
        text += &String::from_utf8_lossy(&bytes[..length]);
    } else {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        BufReader::new(stream.take(256)).read_line(&mut text)?;
    }
    Ok(text.trim().to_owned())
}

/// Asks the neighbour `via`, by TCP, for 127.0.0.1 at the port. This network
/// gives up its own loopback address for that.
pub(crate) fn forge(via: Ipv4Addr, port: u16, patience: Duration) -> Result<io::Result<String>> {
    let to = (Ipv4Addr::LOCALHOST, port).into();
    // The second time everything is prepared.
    if rtnl::delete_address("lo", Ipv4Addr::LOCALHOST, 8).is_ok() {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
            .context("write to route_localnet")?;
        rtnl::add_route(Some(Ipv4Addr::LOCALHOST), via)?;
    }
    Ok(talk(false, to, 0, patience))
}

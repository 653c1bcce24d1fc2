//! The option `-p`: a port of the host that leads to one of a container. Its
//! rules are `nat::published`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::nat::protocol::Protocol;

/// One published port, spelled `[IP:]HOSTPORT:PORT[/tcp|/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address; 0.0.0.0 for all its addresses.
    pub ip: Ipv4Addr,
    /// The host's port; 0 for any free one.
    pub host_port: u16,
    /// The last of the host's ports, if any free one from `host_port` on to this
    /// one may be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// The container's port.
    pub port: u16,
    /// The protocol of both ports.
    pub protocol: Protocol,
}

impl FromStr for Publish {
    type Err = Error;

    /// Reads `[IP:]HOSTPORT:PORT[/tcp|/udp]`. The error names the invalid part.
    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => bail!("the protocol is tcp or udp, not {other:?}"),
        };
        if text.contains('[') {
            bail!("ports are published on IPv4 addresses only");
        }
        let (ip, host_port, port) = match ports.split(':').collect::<Vec<_>>()[..] {
            [host, inside] => (Ipv4Addr::UNSPECIFIED, host, inside),
            [ip, host, inside] => (
                ip.parse()
                    .map_err(|_| anyhow!("{ip:?} is not an IPv4 address"))?,
                host,
                inside,
            ),
            _ => bail!("it is [IP:]HOSTPORT:PORT[/udp]"),
        };
        Ok(Publish {
            ip,
            host_port: self::port(host_port)?,
            to: None,
            port: self::port(port)?,
            protocol,
        })
    }
}

fn port(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => bail!("{text:?} is not a port: use a number from 1 to 65535"),
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Publish {
            ip,
            host_port,
            port,
            protocol,
            ..
        } = self;
        write!(f, "{ip}:{host_port}->{port}/{protocol}")
    }
}

impl Publish {
    /// The host's address and port, for bind(2).
    pub fn host(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, self.host_port)
    }

    /// Whether the host's port is still to be chosen.
    pub fn is_open(&self) -> bool {
        self.host_port == 0 || self.to.is_some()
    }

    /// Whether both need the same port of the host. One that is still to be
    /// chosen does not.
    pub fn clashes_with(&self, other: &Publish) -> bool {
        if self.is_open() || other.is_open() {
            return false;
        }
        let same_ip = self.ip == other.ip || self.ip.is_unspecified() || other.ip.is_unspecified();
        same_ip && self.host_port == other.host_port && self.protocol == other.protocol
    }
}

/// Refuses ports that clash with one another. The error names the first two.
pub(crate) fn check(ports: &[Publish]) -> Result<()> {
    for (n, port) in ports.iter().enumerate() {
        if let Some(other) = ports[..n].iter().find(|other| port.clashes_with(other)) {
            return Err(anyhow!("both publish the same port of the host"))
                .with_context(|| format!("-p {other} and {port}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_in_all_its_forms() {
        for (text, shown) in [
            ("8080:80", "0.0.0.0:8080->80/tcp"),
            ("8080:80/tcp", "0.0.0.0:8080->80/tcp"),
            ("53:5353/udp", "0.0.0.0:53->5353/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("192.0.2.1:1:65535/udp", "192.0.2.1:1->65535/udp"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_the_reason() {
        for (text, reason) in [
            ("80", "[IP:]HOSTPORT:PORT"),
            ("1:2:3:4", "[IP:]HOSTPORT:PORT"),
            (":80", "not a port"),
            ("0:80", "not a port"),
            ("80:65536", "not a port"),
            ("80:-1", "not a port"),
            ("80:80/tcp/tcp", "not a port"),
            ("80:80/sctp", "tcp or udp"),
            ("localhost:80:80", "not an IPv4 address"),
            ("[::1]:80:80", "IPv4 addresses only"),
        ] {
            let error = text.parse::<Publish>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn ports_clash_where_one_socket_would_keep_the_other_out() {
        let clash = |a: &str, b: &str| {
            let (a, b): (Publish, Publish) = (a.parse().unwrap(), b.parse().unwrap());
            check(&[a, b]).is_err()
        };
        assert!(clash("8080:80", "8080:81"));
        assert!(clash("8080:80", "127.0.0.1:8080:80"));
        assert!(!clash("8080:80", "8080:80/udp"));
        assert!(!clash("127.0.0.1:8080:80", "127.0.0.2:8080:80"));
        assert!(!clash("8080:80", "8081:80"));
    }
}

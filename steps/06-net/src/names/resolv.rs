//! The content of a container's resolv.conf(5) and hosts(5), and its sources.

use std::fmt;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// The files with the host's name servers, in the order in which they are read.
/// The second is for hosts whose first lists only systemd-resolved at
/// 127.0.0.53, which a container cannot reach: systemd-resolved lists its own
/// servers there.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The most that is read of another container's file, in bytes.
const LIMIT: u64 = 1 << 20;

/// The word for the address at which a container reaches its host: Docker's.
const HOST_GATEWAY: &str = "host-gateway";

/// The address of a name in /etc/hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// This one.
    Ip(IpAddr),
    /// That of the host, on the default bridge.
    Gateway,
}

/// A name for /etc/hosts, spelled `NAME:IP` or `NAME:host-gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The host name: letters, digits, `-`, `.` and `_`.
    pub name: String,
    /// Its address.
    pub address: HostAddress,
}

impl FromStr for HostEntry {
    type Err = Error;

    /// Reads `NAME:IP`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || anyhow!("use NAME:IP, as in db:10.213.0.7");
        let (name, ip) = text.split_once(':').ok_or_else(wrong)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(wrong());
        }
        Ok(HostEntry {
            name: name.to_owned(),
            address: match ip {
                HOST_GATEWAY => HostAddress::Gateway,
                ip => HostAddress::Ip(ip.parse().map_err(|_| wrong())?),
            },
        })
    }
}

/// Composes a resolv.conf for containers on the bridge. Also returns whether
/// the host has name servers but none that a container can reach. `dns`
/// replaces the host's servers. A missing /etc/resolv.conf is no error.
pub(crate) fn for_bridge(dns: &[IpAddr]) -> Result<(String, bool)> {
    let mut texts = Vec::new();
    for path in RESOLV_CONF {
        texts.extend(read(path)?);
    }
    Ok(best(&texts, dns))
}

/// The address at which a container with user-defined bridges finds the engine's
/// resolver: Docker's.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Composes a resolv.conf that leads to the engine's resolver. The host's search
/// list and options stay; the servers are asked by the resolver.
pub fn for_resolver(dns: &[IpAddr]) -> Result<String> {
    let host = read(RESOLV_CONF[0])?.unwrap_or_default();
    Ok(to_resolver(&host, dns.is_empty()))
}

fn to_resolver(host: &str, as_host: bool) -> String {
    let mut options = Vec::new();
    let mut text = String::new();
    for line in host.lines().filter(|_| as_host) {
        match line.split_whitespace().next() {
            Some("search" | "domain") => text += &format!("{line}\n"),
            Some("options") => options.extend(line.split_whitespace().skip(1)),
            _ => {}
        }
    }
    text += &format!("nameserver {RESOLVER}\n");
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    text + &format!("options {}\n", options.join(" "))
}

/// The name servers that the engine's resolver asks: `dns`, or the host's. It
/// asks them in the host's network, so a server at a loopback address is one of
/// them.
pub fn servers(dns: &[IpAddr]) -> Result<Vec<IpAddr>> {
    if !dns.is_empty() {
        return Ok(dns.to_vec());
    }
    let host = read(RESOLV_CONF[0])?.unwrap_or_default();
    // With a zone, such as fe80::1%eth0, an address is not enough.
    let plain = host.lines().filter(|line| !line.contains('%'));
    Ok(plain.filter_map(server).collect())
}

fn best(texts: &[String], dns: &[IpAddr]) -> (String, bool) {
    let usable = texts
        .iter()
        .map(|text| reachable(text, dns))
        .find(|text| has_server(text));
    if let Some(text) = usable {
        return (text, false);
    }
    let first = texts.first().map_or("", String::as_str);
    let lost = dns.is_empty() && texts.iter().any(|text| has_server(text));
    (reachable(first, dns), lost)
}

/// The lines of a resolv.conf, with `dns` as its servers, or without the
/// servers that the bridge does not reach: a loopback address is the
/// container's own, and IPv6 leads to other containers only.
fn reachable(text: &str, dns: &[IpAddr]) -> String {
    let mut lines: Vec<String> = dns.iter().map(|ip| format!("nameserver {ip}")).collect();
    lines.extend(
        text.lines()
            .filter(|line| match server(line) {
                None => true,
                Some(ip) => dns.is_empty() && ip.is_ipv4() && !ip.is_loopback(),
            })
            .map(str::to_owned),
    );
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn has_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

/// The address in a `nameserver` line. An IPv6 address may have a zone:
/// fe80::1%eth0.
fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| *word == "nameserver")?;
    let ip = words.next()?;
    ip.split('%').next()?.parse().ok()
}

/// Composes the hosts file of a container with the name `hostname`. Without an
/// address on the bridge the name is that of 127.0.1.1, as on a Debian host
/// without a permanent address. `gateway` is the host's address, if there is a
/// bridge; without one, names of it are left out.
pub(crate) fn hosts(
    hostname: &str,
    address: Option<Ipv4Addr>,
    entries: &[HostEntry],
    gateway: Option<Ipv4Addr>,
) -> String {
    let own = address.unwrap_or(Ipv4Addr::new(127, 0, 1, 1));
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    text += &format!("{own}\t{hostname}\n");
    for HostEntry { name, address } in entries {
        let ip = match address {
            HostAddress::Ip(ip) => Some(*ip),
            HostAddress::Gateway => gateway.map(IpAddr::V4),
        };
        if let Some(ip) = ip {
            text += &format!("{ip}\t{name}\n");
        }
    }
    text
}

/// Reads a file of the host; `None` if it is missing.
pub(crate) fn read(path: &str) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {path:?}")),
    }
}

/// Reads a file of the container of the process `pid`; `None` if that fails.
/// Symbolic links resolve within the container, not on the host (openat2(2),
/// `RESOLVE_IN_ROOT`): its files are untrusted.
pub(crate) fn read_of_container(pid: Pid, path: &str) -> Option<String> {
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    // A FIFO must not make us wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), inside).ok()?;
    let mut bytes = Vec::new();
    fs::File::from(file)
        .take(LIMIT)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            HostAddress::Ip(ip) => write!(f, "{}:{ip}", self.name),
            HostAddress::Gateway => write!(f, "{}:{HOST_GATEWAY}", self.name),
        }
    }
}

kit::serde_as_text!(HostEntry);

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n";

    #[test]
    fn servers_that_a_container_cannot_reach_are_left_out() {
        let text = "nameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nsearch lan\n";
        assert_eq!(reachable(text, &[]), "nameserver 10.0.0.1\nsearch lan\n");
        assert_eq!(reachable(STUB, &[]), "# stub\noptions edns0\nsearch lan\n");
        assert!(!has_server(&reachable(STUB, &[])));
    }

    #[test]
    fn the_list_behind_a_stub_is_found_and_its_lack_is_noticed() {
        let (stub, list) = (STUB.to_owned(), "nameserver 10.0.0.1\n".to_owned());
        let both = [stub.clone(), list.clone()];
        assert_eq!(best(&both, &[]), (list, false));
        assert!(best(&[stub], &[]).1);
        assert_eq!(best(&[], &[]), (String::new(), false));
    }

    #[test]
    fn servers_that_were_asked_for_replace_the_others() {
        let dns = ["192.0.2.53".parse().unwrap()];
        assert_eq!(
            reachable("nameserver 10.0.0.1\nsearch lan\n", &dns),
            "nameserver 192.0.2.53\nsearch lan\n"
        );
    }

    #[test]
    fn the_resolver_replaces_the_servers_only() {
        let host = "search lan\nnameserver 10.0.0.1\noptions edns0\n";
        assert_eq!(
            to_resolver(host, true),
            "search lan\nnameserver 127.0.0.11\noptions edns0 ndots:0\n"
        );
        assert_eq!(
            to_resolver("options ndots:2\n", true),
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
    }

    #[test]
    fn a_container_finds_itself() {
        let hosts = hosts("box", Some(Ipv4Addr::new(10, 0, 0, 2)), &[], None);
        assert!(hosts.ends_with("\n10.0.0.2\tbox\n"));
        assert!(super::hosts("box", None, &[], None).ends_with("\n127.0.1.1\tbox\n"));
    }

    #[test]
    fn the_host_has_a_name_where_there_is_a_bridge() {
        let entries = ["host:host-gateway".parse().unwrap()];
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        assert!(hosts("box", None, &entries, Some(gateway)).ends_with("\n10.0.0.1\thost\n"));
        assert!(hosts("box", None, &entries, None).ends_with("\tbox\n"));
        assert_eq!(entries[0].to_string(), "host:host-gateway");
    }

    #[test]
    fn a_host_entry_is_a_name_and_an_address() {
        let entry: HostEntry = "db:fd00::7".parse().unwrap();
        let address = HostAddress::Ip("fd00::7".parse().unwrap());
        assert_eq!((entry.name.as_str(), entry.address), ("db", address));
        for text in ["db", "db:", ":10.0.0.1", "a b:10.0.0.1", "db:host"] {
            assert!(text.parse::<HostEntry>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn files_of_a_process_are_read_in_its_root() {
        let own = Pid::this();
        assert_eq!(read_of_container(own, "/no/such/file"), None);
        assert!(read_of_container(own, "/proc/self/comm").is_some());
    }
}

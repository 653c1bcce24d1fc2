//! Reports of the probe: its view from inside, and the result of an attempt.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::host::Mount;

/// The report of `probe report`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// getpid(2).
    pub pid: i32,
    /// getppid(2): 0 for the first process of a PID namespace.
    pub ppid: i32,
    /// getpgrp(2).
    pub pgrp: i32,
    /// getsid(2): 0 where the leader is outside the PID namespace.
    pub sid: i32,
    /// Foreground process group of the terminal on standard input, if it is one.
    pub foreground: Option<i32>,
    /// Real, effective and saved user ID.
    pub uids: [u32; 3],
    /// Real, effective and saved group ID.
    pub gids: [u32; 3],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// gethostname(2).
    pub hostname: String,
    /// getdomainname(2).
    pub domainname: String,
    /// Namespaces from /proc/self/ns, kind to inode number; empty if /proc is
    /// not mounted.
    pub namespaces: BTreeMap<String, u64>,
    /// Lines of /proc/self/cgroup.
    pub cgroup: Vec<String>,
    /// /proc/self/mountinfo; empty if /proc is not mounted.
    pub mounts: Vec<Mount>,
    /// Names of the links in /proc/net/dev.
    pub links: Vec<String>,
    /// Working directory; empty if it is unreachable.
    pub cwd: String,
    /// Entries of the root directory.
    pub root: Vec<String>,
    /// PIDs in /proc.
    pub processes: Vec<i32>,
    /// Open file descriptors and their targets, without that of the listing.
    pub fds: BTreeMap<i32, String>,
    /// Capability sets as 64-bit masks: `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`.
    pub capabilities: BTreeMap<String, u64>,
    /// Signals blocked and ignored, as 64-bit masks (bit N-1 is signal N): `SigBlk`, `SigIgn`.
    pub signals: BTreeMap<String, u64>,
    /// Lines of /proc/self/limits; empty if /proc is not mounted.
    pub limits: Vec<String>,
    /// System V objects: lines of /proc/sysvipc/{msg,sem,shm}, kind first.
    pub sysv: Vec<String>,
    /// POSIX message queues.
    pub posix_queues: Vec<String>,
    /// /proc/self/uid_map, each line as [inside, outside, count].
    pub uid_map: Vec<[u64; 3]>,
    /// /proc/self/gid_map.
    pub gid_map: Vec<[u64; 3]>,
    /// Arguments after `report`.
    pub args: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
}

impl Seen {
    /// The topmost mount at exactly this mount point.
    pub fn mount(&self, mount_point: &str) -> Option<&Mount> {
        self.mounts
            .iter()
            .rev()
            .find(|m| m.mount_point == mount_point)
    }

    /// The soft and the hard limit in the line of /proc/self/limits that begins
    /// with `name` (getrlimit(2)).
    pub fn limit(&self, name: &str) -> Option<[&str; 2]> {
        let line = self.limits.iter().find_map(|line| line.strip_prefix(name));
        let mut values = line?.split_whitespace();
        Some([values.next()?, values.next()?])
    }
}

/// The result of something that the probe tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Whether the kernel allowed it.
    pub allowed: bool,
    /// Name of the errno, such as `EPERM`; empty if allowed.
    pub errno: String,
    /// What was read, made or found; may be empty.
    pub text: String,
}

/// The report of `probe network`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The devices, by their names.
    pub devices: BTreeMap<String, Device>,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
}

impl Network {
    /// The IPv4 addresses of all devices but lo, with a space between them.
    pub fn addresses(&self) -> String {
        let devices = self.devices.iter().filter(|(name, _)| *name != "lo");
        let ips = devices.flat_map(|(_, device)| device.ipv4());
        ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
    }
}

/// A device of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Whether `IFF_UP` is set.
    pub up: bool,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its addresses, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
}

impl Device {
    /// Its IPv4 addresses.
    pub fn ipv4(&self) -> Vec<Ipv4Addr> {
        let v4 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        };
        self.addresses.iter().filter_map(v4).collect()
    }
}

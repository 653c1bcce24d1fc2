//! A network that stands for the host's, in which a check can build bridges,
//! and remote hosts connected by cables: network_namespaces(7).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::check::Check;
use crate::expect::failed;
use crate::seen::{Attempt, Network};
use crate::step::{Held, Step};
use crate::{nft, rtnl};

/// How long to wait for an answer that should not come.
const IN_VAIN: Duration = Duration::from_secs(1);

/// Longest time for the kernel to dismantle a dead namespace.
const SETTLE: Duration = Duration::from_secs(5);

/// The network that replaces the host's for this thread and for what it starts:
/// a loopback device, no rules, forwarding off. Changes by a wrong solution
/// vanish with it, and the real host's firewall or other engines have no
/// influence.
pub struct Lan<'a> {
    check: &'a Check,
    before: File,
    remotes: Cell<u8>,
}

impl<'a> Lan<'a> {
    /// Moves this thread into a new network until the value is dropped. Needs
    /// root.
    pub fn enter(check: &'a Check) -> Result<Self> {
        let ns = "/proc/thread-self/ns/net";
        let before = File::open(ns).with_context(|| format!("open {ns}"))?;
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
        let lan = Lan {
            check,
            before,
            remotes: Cell::new(0),
        };
        rtnl::set_up("lo")?;
        // A new network namespace inherits the values of the first one.
        write("ip_forward", "0")?;
        write("conf/all/route_localnet", "0")?;
        write("conf/default/route_localnet", "0")?;
        Ok(lan)
    }

    /// The step's state directory, which is the check's own.
    pub fn state(&self) -> PathBuf {
        self.check.dir().join("state")
    }

    /// The step's program, with its state in [`state`](Self::state).
    pub fn step(&self) -> Step {
        self.check.step().env("DRYDOCK_STATE", self.state())
    }

    /// Starts a container on the bridge that waits for questions.
    pub fn container(&self, args: &[&str]) -> Result<Held> {
        let bridge = ["--network", "bridge"];
        self.step().args(bridge).args(args).hold()
    }

    /// Starts a container on the bridge that answers on `port`, by TCP and by
    /// UDP, with `word` and the address of the asker.
    pub fn server(&self, args: &[&str], port: u16, word: &str) -> Result<Held> {
        let serve = ["probe", "serve", &port.to_string(), word];
        let bridge = ["--network", "bridge"];
        let step = self.step().args(bridge).args(args).args(serve);
        ready(step.start()?)
    }

    /// Starts such a server on the host itself.
    pub fn host_server(&self, port: u16, word: &str) -> Result<Held> {
        let probe = self.check.other_program("probe");
        ready(probe.args(["serve", &port.to_string(), word]).start()?)
    }

    /// Makes a remote host, connected to ours by a cable of its own. Our host
    /// is its default gateway.
    pub fn remote(&self) -> Result<Remote> {
        let n = self.remotes.get();
        self.remotes
            .set(n.checked_add(1).context("a network for each remote")?);
        let [here, there] = cable_ends(n);
        let cable = format!("uplink{n}");
        let probe = self.check.other_program("probe");
        let held = probe.args(["elsewhere"]).hold()?;
        let pid = held.launcher();
        rtnl::add_veth(&cable, "eth0", pid)?;
        rtnl::add_address(&cable, here, 24)?;
        rtnl::set_up(&cable)?;
        inside(pid, || {
            rtnl::add_address("eth0", there, 24)?;
            rtnl::set_up("eth0")?;
            rtnl::add_route(None, here)
        })?;
        Ok(Remote { held, here, there })
    }

    /// The network of a launcher's container, as a probe of ours sees it from
    /// the container's network namespace.
    pub fn network(&self, container: &Held) -> Result<Network> {
        inside(container.pid()?, || {
            let probe = self.check.other_program("probe");
            probe.args(["network"]).run()?.success()?.json()
        })
    }

    /// The address of a container on the bridge.
    ///
    /// # Errors
    /// [`Failed`](crate::outcome::Failed) if it has none, or several.
    pub fn address(&self, container: &Held) -> Result<Ipv4Addr> {
        let network = self.network(container)?;
        match network.devices.get("eth0").map(|eth0| eth0.ipv4()) {
            Some(ips) if ips.len() == 1 => Ok(ips[0]),
            found => Err(failed(
                "eth0 in the container, with one IPv4 address",
                format!("{found:?}"),
            )),
        }
    }

    /// Asks a server from a container's network, with a probe of ours.
    pub fn ask_from(
        &self,
        container: &Held,
        protocol: &str,
        ip: impl Into<IpAddr>,
        port: u16,
    ) -> Result<Attempt> {
        inside(container.pid()?, || self.ask(protocol, ip, port))
    }

    /// Asks a server from the host itself.
    pub fn ask(&self, protocol: &str, ip: impl Into<IpAddr>, port: u16) -> Result<Attempt> {
        let to = SocketAddr::new(ip.into(), port).to_string();
        let probe = self.check.other_program("probe");
        probe.args(["talk", protocol, &to]).run()?.success()?.json()
    }

    /// Everything that a step may change in this host's network, and its state
    /// files.
    pub fn snapshot(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        let mut add = |what: &str, line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            all.insert(format!("{what} {}", words.join(" ")));
        };
        for line in proc_net("dev")?.lines() {
            if let Some((name, _)) = line.split_once(':') {
                add("link", name);
                let forwarding = format!("conf/{}/forwarding", name.trim());
                add("sysctl", &format!("{forwarding} {}", read(&forwarding)));
            }
        }
        for line in proc_net("fib_trie")?.lines() {
            if line.contains("/32 host") || line.contains("|--") {
                add("address", line);
            }
        }
        for line in proc_net("route")?.lines().skip(1) {
            add("route", line);
        }
        for name in [
            "ip_forward",
            "conf/all/route_localnet",
            "conf/all/accept_redirects",
            "conf/default/forwarding",
        ] {
            add("sysctl", &format!("{name} {}", read(name)));
        }
        for table in nft::tables()? {
            add("nft table", &table);
        }
        files(&self.state(), &mut all);
        Ok(all)
    }

    /// Fails unless the host becomes as it was when `before` was taken. Waits
    /// for the kernel to dismantle dead namespaces in the background.
    ///
    /// # Errors
    /// [`Failed`](crate::outcome::Failed), with the differences.
    pub fn expect_as_before(&self, before: &BTreeSet<String>, when: &str) -> Result<()> {
        let end = Instant::now() + SETTLE;
        loop {
            let now = self.snapshot()?;
            let left = now.difference(before).map(|l| format!("left behind: {l}"));
            let gone = before.difference(&now).map(|l| format!("gone: {l}"));
            let differences: Vec<String> = left.chain(gone).collect();
            if differences.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(failed(
                    format!("the host's network as it was, {when}"),
                    differences.join("; "),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lan<'_> {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.before, CloneFlags::CLONE_NEWNET) {
            eprintln!("setns back to the host's network namespace: {errno}");
        }
    }
}

/// The addresses at both ends of the cable to the remote host `n`: ours and its
/// own, in a network of 24 bits that no other cable has.
fn cable_ends(n: u8) -> [Ipv4Addr; 2] {
    [1, 2].map(|host| match n {
        // Networks for documentation (RFC 5737).
        0 => Ipv4Addr::new(192, 0, 2, host),
        1 => Ipv4Addr::new(198, 51, 100, host),
        2 => Ipv4Addr::new(203, 0, 113, host),
        // Networks for measurements (RFC 2544).
        _ => Ipv4Addr::new(198, 18, n, host),
    })
}

/// A remote host.
pub struct Remote {
    held: Held,
    /// Our address on the cable to it.
    pub here: Ipv4Addr,
    /// Its address on the cable.
    pub there: Ipv4Addr,
}

impl Remote {
    /// Asks a server from there if no answer should come: waits one second
    /// only.
    pub fn ask_in_vain(&mut self, ip: Ipv4Addr, port: u16) -> Result<Attempt> {
        let to = format!("{ip}:{port}");
        let patience = IN_VAIN.as_millis().to_string();
        self.held
            .ask(&["talk", "tcp", &to, "--patience", &patience])
    }

    /// Asks a server from there.
    pub fn ask(&mut self, protocol: &str, ip: Ipv4Addr, port: u16) -> Result<Attempt> {
        let to = format!("{ip}:{port}");
        self.held.ask(&["talk", protocol, &to])
    }

    /// Asks from there for a service of our loopback: sends packets for
    /// 127.0.0.1 our way. No answer should come.
    pub fn ask_loopback(&mut self, port: u16) -> Result<Attempt> {
        forge(&mut self.held, self.here, port)
    }

    /// The probe there, to be asked anything.
    pub fn probe(&mut self) -> &mut Held {
        &mut self.held
    }

    /// Starts a server there, like that of [`Lan::server`].
    pub fn server(&self, check: &Check, port: u16, word: &str) -> Result<Held> {
        let serve = ["serve", &port.to_string(), word];
        inside(self.held.launcher(), || {
            ready(check.other_program("probe").args(serve).start()?)
        })
    }
}

/// Asks, from where a probe is, for a service of its neighbour's loopback:
/// sends packets for 127.0.0.1 that way. No answer should come.
pub fn forge(held: &mut Held, via: Ipv4Addr, port: u16) -> Result<Attempt> {
    let (via, port) = (via.to_string(), port.to_string());
    let patience = IN_VAIN.as_millis().to_string();
    held.ask(&["forge", &via, &port, "--patience", &patience])
}

/// Waits until a server has bound its port.
fn ready(mut server: Held) -> Result<Held> {
    let said: Attempt = server.read()?;
    if !said.allowed {
        return Err(failed("a server that has its port", said.errno));
    }
    Ok(server)
}

/// Runs `act` in the network namespace of a process.
pub fn inside<T>(pid: i32, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let open = |path: &str| File::open(path).with_context(|| format!("open {path}"));
    let (here, there) = (
        open("/proc/thread-self/ns/net")?,
        open(&format!("/proc/{pid}/ns/net"))?,
    );
    setns(there, CloneFlags::CLONE_NEWNET).context("setns(CLONE_NEWNET)")?;
    let done = act();
    setns(here, CloneFlags::CLONE_NEWNET).context("setns(CLONE_NEWNET)")?;
    done
}

/// Reads a file of /proc/net, of this thread: the process may be in another
/// network.
fn proc_net(name: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// Reads a sysctl of IPv4, of this thread's network.
pub fn read(name: &str) -> String {
    let text = fs::read_to_string(sysctl(name)).unwrap_or_default();
    text.trim().to_owned()
}

/// Sets a sysctl of IPv4, of this thread's network.
pub fn write(name: &str, value: &str) -> Result<()> {
    fs::write(sysctl(name), value).with_context(|| format!("write {value} to {}", sysctl(name)))
}

fn sysctl(name: &str) -> String {
    format!("/proc/sys/net/ipv4/{name}")
}

fn files(path: &Path, all: &mut BTreeSet<String>) {
    if path.exists() {
        all.insert(format!("file {}", path.display()));
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        files(&entry.path(), all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cable_has_a_network_of_its_own() {
        let networks: BTreeSet<[u8; 3]> = (0..=u8::MAX)
            .map(|n| {
                let [here, there] = cable_ends(n).map(|ip| ip.octets());
                assert_eq!(here[..3], there[..3]);
                assert_ne!(here[3], there[3]);
                [here[0], here[1], here[2]]
            })
            .collect();
        assert_eq!(networks.len(), 256);
    }
}

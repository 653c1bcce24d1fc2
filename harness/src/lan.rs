//! A network that stands for the host's, so that a check can build bridges in
//! it, and hosts on the other side of its cables: network_namespaces(7).

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

/// How long to wait for an answer that ought not to come.
const IN_VAIN: Duration = Duration::from_secs(1);

/// How long the kernel may take to take a dead namespace apart.
const SETTLE: Duration = Duration::from_secs(5);

/// The network that takes the host's place for this thread and for what it
/// starts, with a loopback device and no other, no rules, and forwarding off.
/// What a wrong solution does to it goes with it, and what the real host has
/// (a firewall, another engine) is no matter.
pub struct Lan<'a> {
    check: &'a Check,
    before: File,
    remotes: Cell<u8>,
}

impl<'a> Lan<'a> {
    /// Moves this thread into a new network until the value is dropped.
    ///
    /// # Errors
    /// Those of unshare(2): it needs root.
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
        // A new network has the values of the first one.
        write("ip_forward", "0")?;
        write("conf/all/route_localnet", "0")?;
        write("conf/default/route_localnet", "0")?;
        Ok(lan)
    }

    /// Where the step keeps its state: a directory of the check's own.
    pub fn state(&self) -> PathBuf {
        self.check.dir().join("state")
    }

    /// The step's program, which keeps its state here.
    pub fn step(&self) -> Step {
        self.check.step().env("DRYDOCK_STATE", self.state())
    }

    /// A container on the bridge that waits for questions.
    ///
    /// # Errors
    /// As [`Step::hold`].
    pub fn container(&self, args: &[&str]) -> Result<Held> {
        let bridge = ["--network", "bridge"];
        self.step().args(bridge).args(args).hold()
    }

    /// A container on the bridge that answers on `port`, by TCP and by UDP, with
    /// `word` and the address from which it was asked.
    ///
    /// # Errors
    /// If it does not come to run.
    pub fn server(&self, args: &[&str], port: u16, word: &str) -> Result<Held> {
        let serve = ["probe", "serve", &port.to_string(), word];
        let bridge = ["--network", "bridge"];
        let step = self.step().args(bridge).args(args).args(serve);
        ready(step.start()?)
    }

    /// The same on the host itself.
    ///
    /// # Errors
    /// If it does not come to run.
    pub fn host_server(&self, port: u16, word: &str) -> Result<Held> {
        let probe = self.check.other_program("probe");
        ready(probe.args(["serve", &port.to_string(), word]).start()?)
    }

    /// Another host, on a cable of its own with ours, which it uses for
    /// everything.
    ///
    /// # Errors
    /// Those of making it.
    pub fn remote(&self) -> Result<Remote> {
        let n = self.remotes.get();
        self.remotes.set(n + 1);
        // Networks for documentation (RFC 5737).
        let at = |host| match n {
            0 => Ipv4Addr::new(192, 0, 2, host),
            1 => Ipv4Addr::new(198, 51, 100, host),
            _ => Ipv4Addr::new(203, 0, 113, host),
        };
        let (here, there) = (at(1), at(2));
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

    /// What the container of a launcher sees of its network, looked at from its
    /// namespace by a probe of ours.
    ///
    /// # Errors
    /// If it has no container.
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

    /// Asks from inside a container, by a probe of ours in its network.
    ///
    /// # Errors
    /// If it has no container.
    pub fn ask_from(
        &self,
        container: &Held,
        protocol: &str,
        ip: impl Into<IpAddr>,
        port: u16,
    ) -> Result<Attempt> {
        inside(container.pid()?, || self.ask(protocol, ip, port))
    }

    /// Asks from the host itself.
    ///
    /// # Errors
    /// If the probe cannot be run.
    pub fn ask(&self, protocol: &str, ip: impl Into<IpAddr>, port: u16) -> Result<Attempt> {
        let to = SocketAddr::new(ip.into(), port).to_string();
        let probe = self.check.other_program("probe");
        probe.args(["talk", protocol, &to]).run()?.success()?.json()
    }

    /// All that a step may change about this host's network, and its state.
    ///
    /// # Errors
    /// Those of reading.
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

    /// Goes on if the host is as it was when `before` was taken, perhaps after a
    /// moment: the kernel takes dead namespaces apart in the background.
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

/// A host beyond ours.
pub struct Remote {
    held: Held,
    /// Our address on the cable to it.
    pub here: Ipv4Addr,
    /// Its own.
    pub there: Ipv4Addr,
}

impl Remote {
    /// Asks from there, where no answer is hoped for: does not wait long.
    ///
    /// # Errors
    /// If the probe cannot be asked.
    pub fn ask_in_vain(&mut self, ip: Ipv4Addr, port: u16) -> Result<Attempt> {
        let to = format!("{ip}:{port}");
        let patience = IN_VAIN.as_millis().to_string();
        self.held
            .ask(&["talk", "tcp", &to, "--patience", &patience])
    }

    /// Asks from there.
    ///
    /// # Errors
    /// If the probe cannot be asked.
    pub fn ask(&mut self, protocol: &str, ip: Ipv4Addr, port: u16) -> Result<Attempt> {
        let to = format!("{ip}:{port}");
        self.held.ask(&["talk", protocol, &to])
    }

    /// Asks from there, in vain, for a service of our loopback, by sending packets
    /// with such an address our way.
    ///
    /// # Errors
    /// If the probe cannot be asked.
    pub fn ask_loopback(&mut self, port: u16) -> Result<Attempt> {
        forge(&mut self.held, self.here, port)
    }

    /// Asks the probe there for anything.
    ///
    /// # Errors
    /// As [`Held::ask`].
    pub fn probe(&mut self) -> &mut Held {
        &mut self.held
    }

    /// A server there, as [`Lan::server`].
    ///
    /// # Errors
    /// If it does not come to run.
    pub fn server(&self, check: &Check, port: u16, word: &str) -> Result<Held> {
        let serve = ["serve", &port.to_string(), word];
        inside(self.held.launcher(), || {
            ready(check.other_program("probe").args(serve).start()?)
        })
    }
}

/// Asks from where a probe is, in vain, for a service of its neighbour's
/// loopback, by sending packets for 127.0.0.1 that way.
///
/// # Errors
/// If the probe cannot be asked.
pub fn forge(held: &mut Held, via: Ipv4Addr, port: u16) -> Result<Attempt> {
    let (via, port) = (via.to_string(), port.to_string());
    let patience = IN_VAIN.as_millis().to_string();
    held.ask(&["forge", &via, &port, "--patience", &patience])
}

/// Waits until a server has its port.
fn ready(mut server: Held) -> Result<Held> {
    let said: Attempt = server.read()?;
    if !said.allowed {
        return Err(failed("a server that has its port", said.errno));
    }
    Ok(server)
}

/// Does something in the network namespace of a process.
fn inside<T>(pid: i32, act: impl FnOnce() -> Result<T>) -> Result<T> {
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

/// A file of /proc/net, of this thread: that of the process may be another's.
fn proc_net(name: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// A sysctl of IPv4, of this thread's network.
pub fn read(name: &str) -> String {
    let text = fs::read_to_string(sysctl(name)).unwrap_or_default();
    text.trim().to_owned()
}

/// Sets a sysctl of IPv4, of this thread's network.
///
/// # Errors
/// Those of writing it.
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

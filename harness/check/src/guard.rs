//! The host guard: finds what a check leaves changed on the host.
//!
//! A snapshot is taken before and after every check. A difference fails the
//! check, whatever its other result.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::mqueue::mq_unlink;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gethostname, sethostname};

use crate::{host, sys};

/// The watched parts of the host, in the order in which they are printed.
pub const WATCHED: [&str; 11] = [
    "mounts",
    "cgroups",
    "links",
    "addresses",
    "routes",
    "nft",
    "sysctl",
    "hostname",
    "ipc",
    "devices",
    "files",
];

/// State directories of the engine, in which a run must leave nothing.
pub(crate) const STATE: [&str; 2] = ["/run/drydock", "/var/lib/drydock"];

/// The beginning of the names of checks' directories.
pub(crate) const CHECK_DIR: &str = "drydock-check-";

/// Longest time for the kernel's work after a process has ended: a work queue
/// dismantles its namespaces, and with them links and mounts. Nothing announces
/// the end.
const SETTLE: Duration = Duration::from_secs(5);

/// The state of the host at one moment: for each watched part, the lines that
/// describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    parts: BTreeMap<&'static str, BTreeSet<String>>,
    /// The cgroups in which, or below which, other people's processes are.
    others: BTreeSet<String>,
    /// The name of the directory of the check that is watched.
    check: Option<String>,
}

impl Snapshot {
    /// Takes a snapshot of the host. A part that this kernel lacks is empty.
    pub fn take() -> Result<Self> {
        let mut seen = BTreeMap::new();
        for what in WATCHED {
            seen.insert(
                what,
                look(what).with_context(|| format!("host guard: {what}"))?,
            );
        }
        Ok(Snapshot {
            others: groups_of_others(&seen["cgroups"])?,
            parts: seen,
            check: None,
        })
    }

    /// Watches the check with this directory: what lies in the directory of
    /// another check, in another run on this host, is not its own.
    #[must_use]
    pub fn of_check(mut self, dir: &Path) -> Self {
        self.check = dir.file_name().map(|name| name.to_string_lossy().into());
        self
    }

    /// The differences from `self` to `later`, one per line.
    pub fn differences(&self, later: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        for what in WATCHED {
            let (before, after) = (&self.parts[what], &later.parts[what]);
            // Somebody else's container has ended meanwhile, or begun; or a run before this
            // one was killed, and the check's has removed what it left.
            let gone = before
                .difference(after)
                .filter(|line| !self.is_others(what, line))
                .filter(|line| !is_swept(what, line))
                .filter(|line| !is_unmounted_elsewhere(what, line))
                .filter(|line| !self.is_of_another_check(what, line));
            let new = after
                .difference(before)
                .filter(|line| !later.is_others(what, line))
                .filter(|line| !self.is_of_another_check(what, line));
            lines.extend(gone.map(|line| format!("{what}: gone: {line}")));
            lines.extend(new.map(|line| format!("{what}: left behind: {line}")));
        }
        lines
    }

    fn is_others(&self, what: &str, line: &str) -> bool {
        what == "cgroups" && self.others.contains(line)
    }

    /// Whether a loop device has its file in the directory of another check.
    fn is_of_another_check(&self, what: &str, line: &str) -> bool {
        let mut names = line.split('/');
        let of = names.find(|name| name.starts_with(CHECK_DIR));
        what == "devices"
            && self.check.is_some()
            && of.is_some_and(|of| Some(of) != self.check.as_deref())
    }

    /// The differences from `self` to now that persist. Waits up to five
    /// seconds for the kernel's background work.
    pub fn settled_differences(&self) -> Result<Vec<String>> {
        let end = Instant::now() + SETTLE;
        loop {
            let differences = self.differences(&Snapshot::take()?);
            if differences.is_empty() || Instant::now() > end {
                return Ok(differences);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes the mounts, IPC objects and cgroups that are not in `self` and
    /// resets the host name, so that the next check starts clean. Returns what
    /// could not be undone.
    pub fn restore(&self) -> Vec<String> {
        let mut failed = Vec::new();
        let mut note = |what: String, result: nix::Result<()>| {
            if let Err(errno) = result {
                failed.push(format!("{what}: {errno}"));
            }
        };
        if let Ok(mounts) = host::mounts("self") {
            let before: BTreeSet<_> = self.parts["mounts"].iter().cloned().collect();
            for mount in mounts
                .iter()
                .rev()
                .filter(|m| !before.contains(&m.describe()))
            {
                let result = umount2(Path::new(&mount.mount_point), MntFlags::MNT_DETACH);
                note(format!("umount {}", mount.mount_point), result);
            }
        }
        if let Some(name) = self.parts["hostname"]
            .iter()
            .find_map(|l| l.strip_prefix("hostname "))
        {
            note("sethostname".into(), sethostname(name));
        }
        if let Some(name) = self.parts["hostname"]
            .iter()
            .find_map(|l| l.strip_prefix("domainname "))
        {
            let result = rustix::system::setdomainname(name.as_bytes());
            note(
                "setdomainname".into(),
                result.map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error())),
            );
        }
        if let Ok(now) = ipc() {
            for object in now.difference(&self.parts["ipc"]) {
                note(format!("remove {object}"), remove_ipc(object));
            }
        }
        if let Ok(now) = look("cgroups")
            && let Ok(others) = groups_of_others(&now)
        {
            // Deepest first.
            for group in now
                .difference(&self.parts["cgroups"])
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .filter(|group| !others.contains(*group))
            {
                let gone = fs::remove_dir(group)
                    .map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)));
                note(format!("rmdir {group}"), gone);
            }
        }
        failed
    }
}

fn look(what: &str) -> Result<BTreeSet<String>> {
    match what {
        "mounts" => Ok(host::mounts("self")?
            .iter()
            .map(host::Mount::describe)
            .collect()),
        "cgroups" => cgroups(),
        "links" => Ok(lines("/proc/net/dev", |l| {
            l.split(':').next().filter(|_| l.contains(':'))
        })),
        "addresses" => {
            let mut all = lines("/proc/net/fib_trie", |l| {
                l.contains("/32 host").then_some(l)
            });
            all.extend(lines("/proc/net/if_inet6", |l| Some(l)));
            Ok(all)
        }
        "routes" => Ok(lines("/proc/net/route", |l| {
            (!l.starts_with("Iface")).then_some(l)
        })),
        "nft" => crate::nft::tables(),
        "sysctl" => Ok([
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/net/ipv4/conf/all/route_localnet",
            "/proc/sys/net/ipv6/conf/all/forwarding",
        ]
        .into_iter()
        .filter_map(|file| Some(format!("{file} {}", fs::read_to_string(file).ok()?.trim())))
        .collect()),
        "hostname" => Ok(BTreeSet::from([
            format!(
                "hostname {}",
                gethostname().context("gethostname")?.to_string_lossy()
            ),
            format!(
                "domainname {}",
                fs::read_to_string("/proc/sys/kernel/domainname")?.trim()
            ),
        ])),
        "ipc" => ipc(),
        "devices" => devices(),
        "files" => files(),
        other => anyhow::bail!("nothing is known about {other}"),
    }
}

/// The lines of a /proc file that `pick` keeps, their blanks reduced to one
/// space.
fn lines(file: &str, pick: impl Fn(&str) -> Option<&str>) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(pick)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Every cgroup, except those that a service manager makes for itself.
fn cgroups() -> Result<BTreeSet<String>> {
    fn walk(dir: &Path, all: &mut BTreeSet<String>) {
        // A group may vanish during the walk.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let managed = [".service", ".scope", ".slice", ".mount", ".socket"]
                .iter()
                .any(|e| name.ends_with(e));
            if entry.file_type().is_ok_and(|t| t.is_dir()) && !managed {
                all.insert(entry.path().display().to_string());
                walk(&entry.path(), all);
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &mut all);
    Ok(all)
}

/// Whether the next run removes this thing of a run that was killed.
fn is_swept(what: &str, line: &str) -> bool {
    match what {
        "cgroups" => is_the_engines(line),
        "files" => line.starts_with("/run/drydock/net"),
        _ => false,
    }
}

/// Whether this mount is gone because its mount point is: rmdir(2) of another
/// engine in its own mounts unmounts what is there in all others. Whoever sees
/// the mount gets EBUSY.
fn is_unmounted_elsewhere(what: &str, line: &str) -> bool {
    let place = line.split(' ').next().unwrap_or_default();
    what == "mounts" && !Path::new(place).exists()
}

/// Whether the engine made this group, or one above it.
fn is_the_engines(group: &str) -> bool {
    let mut names = group.split('/');
    names.any(|name| name == "drydock" || name.starts_with("drydock-"))
}

/// The groups among `groups` with processes that are neither this one nor come from it, those
/// that such a process has locked, and those above them. A launcher locks the group that it
/// makes, until its container is in it, and the one in which it makes it.
fn groups_of_others(groups: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let parents: BTreeMap<i32, i32> = host::processes()?
        .into_iter()
        .map(|process| (process.pid, process.ppid))
        .collect();
    let own = Pid::this().as_raw();
    let is_ours = |pid: i32| {
        let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
        line.take_while(|pid| *pid > 0).any(|pid| pid == own)
    };
    let holders = holders();
    let is_locked = |path: &Path| {
        // One that has just gone has no inode, and nobody's lock.
        let inode = fs::metadata(path).map_or(0, |found| found.ino());
        let mut holders = holders.iter().filter(|(_, locked)| *locked == inode);
        holders.any(|(pid, _)| parents.contains_key(pid) && !is_ours(*pid))
    };
    let mut others = BTreeSet::new();
    for group in groups {
        let path = Path::new(group);
        // One that has just gone has none.
        let procs = fs::read_to_string(path.join("cgroup.procs"));
        let procs = procs.unwrap_or_default();
        let mut pids = procs.lines().filter_map(|pid| pid.parse().ok());
        if pids.any(|pid| !is_ours(pid)) || is_locked(path) || path.parent().is_some_and(is_locked)
        {
            others.extend(path.ancestors().map(|above| above.display().to_string()));
        }
    }
    Ok(others)
}

/// Who holds a lock of flock(2), and the inode that is locked, of all locks on the host:
/// proc_locks(5). Inodes of different file systems may be equal.
fn holders() -> Vec<(i32, u64)> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let held = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else {
            return None;
        };
        Some((pid.parse().ok()?, file.rsplit(':').next()?.parse().ok()?))
    });
    held.collect()
}

/// System V objects and POSIX message queues.
fn ipc() -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for kind in ["msg", "sem", "shm"] {
        all.extend(
            lines(&format!("/proc/sysvipc/{kind}"), |l| Some(l))
                .into_iter()
                .filter(|line| !line.starts_with("key "))
                // Key and identifier; the other columns count uses.
                .map(|line| {
                    format!(
                        "{kind} {}",
                        line.split(' ').take(2).collect::<Vec<_>>().join(" ")
                    )
                }),
        );
    }
    all.extend(
        host::posix_queues()?
            .into_iter()
            .map(|name| format!("mqueue /{name}")),
    );
    Ok(all)
}

/// Removes an object, given its line of [`ipc`].
fn remove_ipc(line: &str) -> nix::Result<()> {
    use nix::errno::Errno;
    use sys::SysV;
    let mut words = line.split(' ');
    let kind = match words.next() {
        Some("msg") => SysV::Msg,
        Some("sem") => SysV::Sem,
        Some("shm") => SysV::Shm,
        _ => return words.next().map_or(Err(Errno::EINVAL), mq_unlink),
    };
    let id = words.nth(1).and_then(|id| id.parse().ok());
    sys::remove_sysv(kind, id.ok_or(Errno::EINVAL)?)
}

/// Loop devices in use and device-mapper devices.
fn devices() -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let backing = entry.path().join("loop/backing_file");
        if let Ok(file) = fs::read_to_string(backing) {
            all.insert(format!("{name} {}", file.trim()));
        } else if name.starts_with("dm-") {
            all.insert(name);
        }
    }
    Ok(all)
}

fn files() -> Result<BTreeSet<String>> {
    fn walk(path: &Path, all: &mut BTreeSet<String>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            all.insert(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&entry.path(), all);
            }
        }
    }
    let mut all = BTreeSet::new();
    for dir in STATE {
        walk(Path::new(dir), &mut all);
    }
    Ok(all)
}

/// Kills and reaps every process that the check has left behind, and returns a
/// line for each. The caller must be a child subreaper (prctl(2)): then every
/// orphan of the check is its child.
pub fn reap_left_behind() -> Result<Vec<String>> {
    let mut left = Vec::new();
    loop {
        reap_dead()?;
        let children = host::children(Pid::this().as_raw())?;
        if children.is_empty() {
            return Ok(left);
        }
        for child in children {
            left.push(format!(
                "processes: left behind: {} {}",
                child.pid, child.comm
            ));
            if let Err(errno) = kill(Pid::from_raw(child.pid), Signal::SIGKILL) {
                left.push(format!("processes: kill {}: {errno}", child.pid));
            }
            // Blocks until the child is dead: its own children then become
            // ours.
            match waitpid(Pid::from_raw(child.pid), None) {
                Ok(_) | Err(nix::errno::Errno::ECHILD) => {}
                Err(errno) => return Err(errno).with_context(|| format!("waitpid({})", child.pid)),
            }
        }
    }
}

fn reap_dead() -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno).context("waitpid"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    use super::*;

    /// A snapshot with these lines of one part.
    fn with(what: &str, lines: &[&str]) -> Snapshot {
        let lines = || lines.iter().map(|line| (*line).to_owned()).collect();
        let of = |part| match part == what {
            true => lines(),
            false => BTreeSet::new(),
        };
        Snapshot {
            parts: WATCHED.into_iter().map(|part| (part, of(part))).collect(),
            others: BTreeSet::new(),
            check: None,
        }
    }

    #[test]
    fn a_mount_whose_place_somebody_has_removed_is_not_the_checks() {
        let before = with("mounts", &["/ ext4", "/no/such/merged overlay overlay"]);
        assert!(before.differences(&with("mounts", &["/ ext4"])).is_empty());
        let differences = before.differences(&with("mounts", &[]));
        assert_eq!(differences, ["mounts: gone: / ext4"]);
    }

    #[test]
    fn what_comes_and_what_goes_are_both_named() {
        let before = with("mounts", &["/ ext4", "/proc proc"]);
        let differences = before.differences(&with("mounts", &["/ ext4", "/mnt tmpfs"]));
        assert_eq!(
            differences,
            [
                "mounts: gone: /proc proc",
                "mounts: left behind: /mnt tmpfs"
            ]
        );
    }

    #[test]
    fn a_loop_device_of_another_check_is_not_ours() {
        let before = with("devices", &["loop0 /tmp/drydock-check-other/btrfs.img"]);
        let before = before.of_check(Path::new("/tmp/drydock-check-own"));
        let after = with("devices", &["loop1 /tmp/drydock-check-own/btrfs.img"]);
        assert_eq!(
            before.differences(&after),
            ["devices: left behind: loop1 /tmp/drydock-check-own/btrfs.img"]
        );
    }

    #[test]
    fn groups_of_other_people_come_and_go() {
        let with_others = |groups: &[&str], others: &str| Snapshot {
            others: BTreeSet::from([others.to_owned()]),
            ..with("cgroups", groups)
        };
        let of_a_killed_run = "/cpu/drydock/drydock-1-2";
        let before = with_others(&["/theirs", "/empty", of_a_killed_run], "/theirs");
        let after = with_others(&["/new", "/ours"], "/new");
        assert_eq!(
            before.differences(&after),
            ["cgroups: gone: /empty", "cgroups: left behind: /ours"]
        );
    }

    #[test]
    fn a_group_that_somebody_else_has_locked_is_theirs() {
        let base = tempfile::tempdir().unwrap();
        let [group, below, free] = ["group", "group/below", "free"].map(|name| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            path.display().to_string()
        });
        let all = BTreeSet::from([group.clone(), below.clone(), free.clone()]);
        let own = fs::File::open(&free).unwrap();
        own.lock().unwrap();
        assert_eq!(groups_of_others(&all).unwrap(), BTreeSet::new());
        // Not below this one: setsid ends at once.
        let mut shell = Command::new("setsid")
            .args(["--fork", "flock", &group, "sh", "-c"])
            .arg("echo $PPID; exec sleep 60")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = BufReader::new(shell.stdout.take().unwrap());
        output.take(20).read_line(&mut line).unwrap();
        shell.wait().unwrap();
        let others = groups_of_others(&all).unwrap();
        let flock = Pid::from_raw(line.trim().parse().unwrap());
        nix::sys::signal::killpg(flock, Signal::SIGKILL).unwrap();
        assert!(others.contains(&group) && others.contains(&below));
        assert!(!others.contains(&free));
    }

    #[test]
    fn what_a_killed_run_left_may_go() {
        let before = with("files", &["/run/drydock/net/17/hosts", "/etc/hosts"]);
        let after = with("files", &["/run/drydock/net/18/hosts"]);
        assert_eq!(
            before.differences(&after),
            [
                "files: gone: /etc/hosts",
                "files: left behind: /run/drydock/net/18/hosts"
            ]
        );
    }
}

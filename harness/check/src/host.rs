//! The kernel's state as the host sees it, read from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use procfs::FromRead;
use procfs::process::Stat;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use serde::{Deserialize, Serialize};

/// The eight kinds of namespaces, by their names in /proc/PID/ns.
pub const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
///
/// Not procfs's: that has no order of options and no octal escapes undone, and
/// drops the source `none` and optional fields it does not know. A change of
/// any of them is a change of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Mount ID.
    pub id: u32,
    /// ID of the mount it is mounted on.
    pub parent: u32,
    /// Directory of the file system that is the root of this mount.
    pub root: String,
    /// Mount point, relative to the process's root directory.
    pub mount_point: String,
    /// Per-mount options: `rw,nosuid,relatime`.
    pub options: Vec<String>,
    /// Optional fields: `shared:5`, `master:2`, `unbindable`; none when private.
    pub propagation: Vec<String>,
    /// File system type.
    pub fstype: String,
    /// Mount source, such as a device.
    pub source: String,
    /// Options of the file system as a whole.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Parses one line.
    ///
    /// # Errors
    /// Names a line that does not have the form of the man page.
    pub fn parse(line: &str) -> Result<Self> {
        let list = |s: &str| s.split(',').map(unescape).collect::<Vec<_>>();
        let parse = || {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ');
            let mut file_system = file_system.split(' ');
            Some(Mount {
                id: mount.next()?.parse().ok()?,
                parent: mount.next()?.parse().ok()?,
                root: mount.nth(1).map(unescape)?,
                mount_point: mount.next().map(unescape)?,
                options: mount.next().map(list)?,
                propagation: mount.map(String::from).collect(),
                fstype: file_system.next()?.to_owned(),
                source: file_system.next().map(unescape)?,
                super_options: file_system.next().map(list)?,
            })
        };
        parse().with_context(|| format!("not a line of mountinfo: {line:?}"))
    }

    /// The mount in words that stay the same for its lifetime: without IDs and
    /// peer group numbers.
    pub fn describe(&self) -> String {
        let propagation: Vec<&str> = self
            .propagation
            .iter()
            .filter_map(|f| f.split(':').next())
            .collect();
        format!(
            "{} {} {} {} [{}] {}",
            self.mount_point,
            self.fstype,
            self.source,
            self.root,
            if propagation.is_empty() {
                "private".into()
            } else {
                propagation.join(" ")
            },
            self.options.join(","),
        )
    }
}

/// Undoes the octal escapes of /proc (`\040` is a space).
fn unescape(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The mounts that a process sees; `pid` is a number or `self`.
pub fn mounts(pid: &str) -> Result<Vec<Mount>> {
    let file = format!("/proc/{pid}/mountinfo");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    text.lines().map(Mount::parse).collect()
}

/// The namespaces of a process: kind to inode number. Kinds that this kernel
/// lacks are omitted. `pid` is a number or `self`.
pub fn namespaces(pid: &str) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for kind in NAMESPACES {
        let link = format!("/proc/{pid}/ns/{kind}");
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("readlink {link}")),
        };
        let target = target.to_string_lossy().into_owned();
        let inode = target
            .split_once('[')
            .and_then(|(_, inode)| inode.trim_end_matches(']').parse().ok())
            .with_context(|| format!("{link} -> {target}"))?;
        all.insert(kind.to_owned(), inode);
    }
    if all.is_empty() {
        bail!("there is no process {pid}");
    }
    Ok(all)
}

/// A process, as /proc/PID/stat shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// PID on the host.
    pub pid: i32,
    /// Name of its program, at most 15 bytes.
    pub comm: String,
    /// State: `R` (running), `S` (sleeping), `Z` (zombie)…
    pub state: char,
    /// PID of its parent.
    pub ppid: i32,
    /// ID of its process group.
    pub pgrp: i32,
    /// ID of the foreground process group of its terminal, -1 without a
    /// terminal.
    pub tpgid: i32,
}

/// Looks up one process; `None` if it does not exist.
pub fn process(pid: i32) -> Option<Process> {
    let stat = Stat::from_file(format!("/proc/{pid}/stat")).ok()?;
    Some(Process {
        pid,
        comm: stat.comm,
        state: stat.state,
        ppid: stat.ppid,
        pgrp: stat.pgrp,
        tpgid: stat.tpgid,
    })
}

/// All processes of the host, ordered by PID.
pub fn processes() -> Result<Vec<Process>> {
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .context("list /proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids.into_iter().filter_map(process).collect())
}

/// The children of a process.
pub fn children(pid: i32) -> Result<Vec<Process>> {
    Ok(processes()?.into_iter().filter(|p| p.ppid == pid).collect())
}

/// The children of a process, their children, and so on.
pub fn descendants(pid: i32) -> Result<Vec<Process>> {
    let mut others = processes()?;
    let mut found: Vec<Process> = Vec::new();
    loop {
        let is_below =
            |p: &mut Process| p.ppid == pid || found.iter().any(|above| above.pid == p.ppid);
        let below: Vec<Process> = others.extract_if(.., is_below).collect();
        if below.is_empty() {
            return Ok(found);
        }
        found.extend(below);
    }
}

/// A field of /proc/PID/status, such as `NSpid` or `CapEff`; `None` if the
/// process or the field does not exist.
pub fn status_field(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The scheduling policy of a process as /proc/PID/stat has it: 0 is the normal
/// one (proc_pid_stat(5)).
pub fn scheduling_policy(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may have anything in it, comes the third field.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(41 - 3)?.parse().ok()
}

/// The System V objects of the caller's IPC namespace: lines of
/// /proc/sysvipc/{msg,sem,shm}, kind first, with one space between words. Empty
/// if /proc is not mounted.
pub fn sysv() -> Result<Vec<String>> {
    let mut all = Vec::new();
    for kind in ["msg", "sem", "shm"] {
        let file = format!("/proc/sysvipc/{kind}");
        let text = match fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.with_context(|| format!("read {file}"))?,
        };
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines = text.lines().skip(1);
        all.extend(lines.map(|line| format!("{kind} {}", words(line))));
    }
    Ok(all)
}

/// The POSIX message queues of the caller's IPC namespace (mq_overview(7)).
///
/// They are read from a detached mount of the file system, which needs no mount
/// point and leaves nothing behind. Empty without `CAP_SYS_ADMIN`.
pub fn posix_queues() -> Result<Vec<String>> {
    let context = match fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(rustix::io::Errno::PERM | rustix::io::Errno::NODEV) => return Ok(Vec::new()),
        other => other.context("fsopen(mqueue)")?,
    };
    fsconfig_create(context.as_fd()).context("fsconfig(mqueue, CREATE)")?;
    let root = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .context("fsmount(mqueue)")?;
    let mut dir = Dir::openat(
        &root,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("open the root of mqueue")?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry
            .context("list mqueue")?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn mountinfo_with_optional_fields_and_escapes() {
        let mount = Mount::parse("36 35 98:0 /a /mnt\\040x rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue").unwrap();
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(
            (mount.root.as_str(), mount.mount_point.as_str()),
            ("/a", "/mnt x")
        );
        assert_eq!(mount.propagation, ["master:1", "shared:2"]);
        assert_eq!(
            mount.describe(),
            "/mnt x ext3 /dev/root /a [master shared] rw,noatime"
        );
        assert!(Mount::parse("36 35").is_err());
    }

    #[test]
    fn a_process_is_found_with_its_parent() {
        let me = process(std::process::id() as i32).unwrap();
        assert_eq!(me.ppid, std::os::unix::process::parent_id() as i32);
    }

    #[test]
    fn a_process_is_found_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(OsStr::from_bytes(b") R \xff"));
        let shell = fs::canonicalize("/bin/sh").unwrap();
        // By another process: one that is open for writing here may be
        // inherited by a child of another test, and then cannot be executed.
        let mut copy = Command::new("cp");
        let copied = copy.arg(shell).arg(&program).status().unwrap();
        assert!(copied.success());
        let mut child = Command::new(&program)
            .arg0("sh")
            .args(["-c", "read line"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let found = process(child.id() as i32);
        drop(child.stdin.take());
        child.wait().unwrap();
        let found = found.unwrap();
        assert_eq!(found.comm, ") R \u{fffd}");
        assert_eq!(found.ppid, std::process::id() as i32);
    }
}

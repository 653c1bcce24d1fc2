//! Compares what the probe says of itself with what the host sees of its
//! process. A program that answers in the probe's place, a filter that rewrites
//! the answer and a launcher without a container differ.
//!
//! Everything is read while the probe waits for a question, so that nothing
//! changes in between: its program, its standard streams, and the files of
//! /proc/PID that show what it was asked about. What /proc does not show of
//! another process, a thread looks at that joins its UTS and IPC namespaces for
//! a moment.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

use crate::expect::failed;
use crate::host::{self, Mount};
use crate::seen::Seen;
use crate::workspace;

/// The inodes of the pipes that the check has given to the program under test
/// as standard input and output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipes([u64; 2]);

impl Pipes {
    /// The pipes with these ends.
    pub(super) fn of(stdin: impl AsFd, stdout: impl AsFd) -> Result<Self> {
        let inode = |end: &dyn AsFd| -> Result<u64> {
            Ok(fstat(end.as_fd()).context("fstat of a pipe")?.st_ino)
        };
        Ok(Pipes([inode(&stdin)?, inode(&stdout)?]))
    }
}

/// Fails unless a process below `launcher` is the probe, has the check's own
/// `pipes`, and is as `seen` says.
///
/// # Errors
/// [`Failed`](crate::outcome::Failed), with what differs.
pub(super) fn agrees(call: &str, launcher: i32, pipes: Pipes, seen: &Seen) -> Result<()> {
    let mut found = None;
    // Several may be process 1 of a namespace of theirs.
    for pid in candidates(launcher, seen.pid)? {
        match difference(launcher, pid, pipes, seen) {
            None => return Ok(()),
            what => found = what,
        }
    }
    Err(match found {
        Some(Difference::Stream(name)) => failed(
            format!("the standard {name} of `{call}` to be the probe's"),
            "another pipe: what the probe is asked and says is passed on by somebody, who can \
             change it",
        ),
        Some(Difference::Traced(tracer)) => failed(
            format!("nobody to trace the probe in `{call}`"),
            format!(
                "process {tracer}: what the probe is told by the kernel can be changed on its way"
            ),
        ),
        Some(Difference::Other(what)) => failed(
            format!("the answer of the probe in `{call}` to say what the host sees of its process"),
            format!("another {what}: the answer is not the probe's, or was changed on its way"),
        ),
        None => failed(
            format!(
                "the probe to run in `{call}`, as process {} inside",
                seen.pid
            ),
            "no such process on the host: something else answers in its place",
        ),
    })
}

/// The processes that are `launcher` or come from it, or were left to this
/// process, whose program is the probe and whose PID inside is `inside`.
fn candidates(launcher: i32, inside: i32) -> Result<Vec<i32>> {
    let all = host::processes()?;
    let own = std::process::id() as i32;
    let mut family = BTreeSet::from([launcher]);
    family.extend(all.iter().filter(|p| p.ppid == own).map(|p| p.pid));
    loop {
        let born = all.iter().filter(|p| family.contains(&p.ppid));
        let born: Vec<i32> = born.map(|p| p.pid).collect();
        let before = family.len();
        family.extend(born);
        if family.len() == before {
            break;
        }
    }
    let is_it = |pid: &i32| {
        let pids = host::status_field(*pid, "NSpid").unwrap_or_default();
        pids.split(' ').next_back() == Some(&inside.to_string()) && is_probe(*pid)
    };
    Ok(family.into_iter().filter(is_it).collect())
}

/// Whether a process runs the probe, or a copy of it.
fn is_probe(pid: i32) -> bool {
    let same = || -> std::io::Result<bool> {
        let mut theirs = File::open(format!("/proc/{pid}/exe"))?;
        let mut ours = File::open(workspace::bin().join("probe"))?;
        let (a, b) = (theirs.metadata()?, ours.metadata()?);
        if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
            return Ok(true);
        }
        if a.len() != b.len() {
            return Ok(false);
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        theirs.read_to_end(&mut a)?;
        ours.read_to_end(&mut b)?;
        Ok(a == b)
    };
    // One that has ended is not it.
    same().unwrap_or(false)
}

/// In what a process differs from what was said of it.
#[derive(Debug, PartialEq, Eq)]
enum Difference {
    /// Its standard input or output is not the check's pipe.
    Stream(&'static str),
    /// This process traces it.
    Traced(i32),
    /// Something that the probe has reported.
    Other(String),
}

/// The first thing in which the process differs from what was said of it.
fn difference(launcher: i32, pid: i32, pipes: Pipes, seen: &Seen) -> Option<Difference> {
    let look = || -> Result<Option<Difference>> {
        if let Some(name) = stream(pid, pipes)? {
            return Ok(Some(Difference::Stream(name)));
        }
        let tracer: i32 = status(pid, "TracerPid")?.parse().context("TracerPid")?;
        if tracer != 0 && tracer != std::process::id() as i32 {
            return Ok(Some(Difference::Traced(tracer)));
        }
        let mut told = credentials(pid, seen)?;
        told.extend(places(pid, seen)?);
        told.extend(groups(launcher, pid, seen)?);
        told.extend(names(pid, seen)?);
        let different = told.into_iter().find(|(_, same)| !same);
        Ok(different.map(|(what, _)| Difference::Other(what)))
    };
    look().unwrap_or_else(|error| Some(Difference::Other(format!("state ({error:#})"))))
}

/// What was said, and whether the host sees the same.
type Told = Vec<(String, bool)>;

fn status(pid: i32, field: &str) -> Result<String> {
    host::status_field(pid, field).context("the process has ended")
}

/// Which of the standard streams is not the check's pipe.
fn stream(pid: i32, Pipes(inodes): Pipes) -> Result<Option<&'static str>> {
    for ((fd, name), inode) in [(0, "input"), (1, "output")].into_iter().zip(inodes) {
        let link = format!("/proc/{pid}/fd/{fd}");
        let target = fs::read_link(&link).with_context(|| format!("readlink {link}"))?;
        if target.to_str() != Some(&format!("pipe:[{inode}]")) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// User and group IDs, their maps, capabilities, signal masks, and limits.
fn credentials(pid: i32, seen: &Seen) -> Result<Told> {
    let mut told = Vec::new();
    let users = map_of(pid, "uid_map")?;
    let groups = map_of(pid, "gid_map")?;
    for (field, map, ids) in [
        ("Uid", &users, &seen.uids[..]),
        ("Gid", &groups, &seen.gids[..]),
        ("Groups", &groups, &seen.groups[..]),
    ] {
        let found = status(pid, field)?;
        let found: Vec<u32> = found.split(' ').flat_map(str::parse).collect();
        // The file system's ID comes last, and nobody is asked for it.
        let found = &found[..found.len() - usize::from(field != "Groups" && found.len() == 4)];
        let outside = ids.iter().map(|id| outside(map, *id));
        let same = found
            .iter()
            .zip(outside)
            .all(|(a, b)| b.is_none_or(|b| *a == b));
        told.push((field.to_owned(), same && found.len() == ids.len()));
    }
    // What is read from /proc is missing if none is mounted.
    for (name, map, said) in [
        ("uid_map", &users, &seen.uid_map),
        ("gid_map", &groups, &seen.gid_map),
    ] {
        // The IDs outside depend on who reads (user_namespaces(7)).
        let inside = |map: &[[u64; 3]]| -> Vec<_> { map.iter().map(|m| (m[0], m[2])).collect() };
        told.push((
            name.to_owned(),
            said.is_empty() || inside(map) == inside(said),
        ));
    }
    for (field, mask) in seen.capabilities.iter().chain(&seen.signals) {
        // A signal may have arrived since.
        if field != "SigPnd" {
            let found = u64::from_str_radix(&status(pid, field)?, 16).ok();
            told.push((field.clone(), found == Some(*mask)));
        }
    }
    let file = format!("/proc/{pid}/limits");
    let limits = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let same = seen.limits.is_empty() || limits.lines().eq(&seen.limits);
    told.push(("list of limits".to_owned(), same));
    Ok(told)
}

/// Namespaces, mounts, root directory, network devices, and the parent.
fn places(pid: i32, seen: &Seen) -> Result<Told> {
    let mut told = Vec::new();
    let namespaces = host::namespaces(&pid.to_string())?;
    for (kind, inode) in &seen.namespaces {
        told.push((
            format!("{kind} namespace"),
            namespaces.get(kind) == Some(inode),
        ));
    }
    let all = seen.namespaces.is_empty() || seen.namespaces.len() == namespaces.len();
    told.push(("number of namespaces".to_owned(), all));
    if !seen.mounts.is_empty() {
        // The roots of cgroup mounts, the peer groups and the file systems'
        // options depend on who reads (cgroup_namespaces(7)).
        let what = |mounts: &[Mount]| -> Vec<_> {
            let one = |mount: &Mount| {
                let (place, fstype) = (mount.mount_point.clone(), mount.fstype.clone());
                (mount.id, place, fstype, mount.options.clone())
            };
            mounts.iter().map(one).collect()
        };
        let found = what(&host::mounts(&pid.to_string())?);
        told.push(("list of mounts".to_owned(), found == what(&seen.mounts)));
    }
    if let Ok(entries) = fs::read_dir(format!("/proc/{pid}/root")) {
        let mut found: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        found.sort();
        told.push(("root directory".to_owned(), found == seen.root));
    }
    if !seen.links.is_empty() {
        let file = format!("/proc/{pid}/net/dev");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let links: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim()))
            .collect();
        told.push(("list of network devices".to_owned(), links == seen.links));
    }
    let parent: i32 = status(pid, "PPid")?.parse().context("PPid")?;
    let its_own = |pid: i32| host::namespaces(&pid.to_string()).ok()?.remove("pid");
    // A parent outside of the PID namespace is 0 inside.
    let inside = match its_own(parent) {
        Some(other) if namespaces.get("pid") == Some(&other) => {
            let pids = status(parent, "NSpid")?;
            pids.split(' ').next_back().and_then(|pid| pid.parse().ok())
        }
        _ => Some(0),
    };
    told.push(("parent".to_owned(), inside == Some(seen.ppid)));
    Ok(told)
}

/// Control groups: the process's own, or the launcher's if it was moved since
/// it started, which is for a check of that to say.
fn groups(launcher: i32, pid: i32, seen: &Seen) -> Result<Told> {
    // Hierarchy and path of each line, the path without the first slash.
    let split = |line: &str| -> Option<(String, String)> {
        let (hierarchy, path) = line.rsplit_once(":/")?;
        Some((hierarchy.to_owned(), path.to_owned()))
    };
    let lines = |pid: i32| -> Result<Vec<_>> {
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        Ok(text.lines().filter_map(split).collect())
    };
    let (own, launchers) = (lines(pid)?, lines(launcher)?);
    // The path inside begins at the root of a cgroup namespace.
    let same = seen.cgroup.iter().all(|said| {
        split(said).is_some_and(|(hierarchy, said)| {
            own.iter().chain(&launchers).any(|(found, path)| {
                *found == hierarchy && (said.starts_with("..") || path.ends_with(&said))
            })
        })
    });
    Ok(vec![("control group".to_owned(), same)])
}

/// Host name and IPC objects, as a thread sees them that has joined the
/// namespaces. An ordinary user may not, and compares none.
fn names(pid: i32, seen: &Seen) -> Result<Told> {
    let look = || -> Result<Told> {
        for kind in ["uts", "ipc"] {
            let file = format!("/proc/{pid}/ns/{kind}");
            let namespace = match File::open(&file) {
                Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(Vec::new()),
                opened => opened.with_context(|| format!("open {file}"))?,
            };
            match setns(namespace, CloneFlags::empty()) {
                Err(Errno::EPERM) => return Ok(Vec::new()),
                joined => joined.with_context(|| format!("setns({file})"))?,
            }
        }
        let uname = rustix::system::uname();
        let mut told = vec![
            (
                "host name".to_owned(),
                uname.nodename().to_string_lossy() == seen.hostname,
            ),
            (
                "domain name".to_owned(),
                uname.domainname().to_string_lossy() == seen.domainname,
            ),
        ];
        let mut queues = host::posix_queues()?;
        let mut said = seen.posix_queues.clone();
        queues.sort();
        said.sort();
        // Without privilege inside none can be listed.
        told.push((
            "list of queues".to_owned(),
            said.is_empty() || said == queues,
        ));
        if !seen.namespaces.is_empty() {
            // Kind, key and identifier: users and PIDs depend on who reads.
            let three = |line: &String| line.split(' ').take(3).map(str::to_owned).collect();
            let said: Vec<Vec<String>> = seen.sysv.iter().map(three).collect();
            let found: Vec<Vec<String>> = host::sysv()?.iter().map(three).collect();
            told.push(("list of System V objects".to_owned(), found == said));
        }
        Ok(told)
    };
    std::thread::scope(|scope| scope.spawn(look).join())
        .map_err(|_| anyhow!("the thread that looks panicked"))?
}

/// A map of a process's user namespace, as its lines `[inside, outside, count]`.
fn map_of(pid: i32, name: &str) -> Result<Vec<[u64; 3]>> {
    let file = format!("/proc/{pid}/{name}");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        numbers.try_into().ok()
    };
    Ok(text.lines().filter_map(line).collect())
}

/// An ID inside as the host sees it; `None` for one that is not mapped, which is
/// the overflow ID inside (user_namespaces(7)).
fn outside(map: &[[u64; 3]], id: u32) -> Option<u32> {
    let id = u64::from(id);
    let range = map
        .iter()
        .find(|[from, _, count]| (*from..from + count).contains(&id));
    match range {
        Some([from, to, _]) => u32::try_from(to + (id - from)).ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_host() {
        let map = [[0, 1000, 1], [1, 100_000, 65_536]];
        assert_eq!(outside(&map, 0), Some(1000));
        assert_eq!(outside(&map, 33), Some(100_032));
        assert_eq!(outside(&map, 70_000), None);
    }

    #[test]
    fn what_was_said_of_another_process_differs() {
        let seen = Seen {
            uids: [4_000_000_001; 3],
            ..Seen::default()
        };
        let own = std::process::id() as i32;
        let told = credentials(own, &seen).unwrap();
        assert!(told.contains(&("Uid".to_owned(), false)), "{told:?}");
    }

    #[test]
    fn a_stream_is_told_from_another() {
        let (one, other) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let pipes = Pipes::of(&one.1, &other.0).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(one.0)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let found = stream(child.id() as i32, pipes).unwrap();
        drop(one.1);
        child.wait().unwrap();
        assert_eq!(found, Some("output"));
    }
}

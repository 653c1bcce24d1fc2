//! Compares what the probe says of itself with what the host sees of its
//! process. A program that answers in the probe's place, a filter that rewrites
//! the answer and a launcher without a container differ.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

use crate::expect::failed;
use crate::host::{self, Mount};
use crate::seen::Seen;
use crate::workspace;

/// Fails unless a process below `launcher` is the probe and is as `seen` says.
///
/// # Errors
/// [`Failed`](crate::outcome::Failed), with what differs.
pub(super) fn agrees(call: &str, launcher: i32, seen: &Seen) -> Result<()> {
    let mut found = None;
    // Several may be process 1 of a namespace of theirs.
    for pid in candidates(launcher, seen.pid)? {
        match difference(pid, seen) {
            None => return Ok(()),
            what => found = what,
        }
    }
    Err(match found {
        Some(what) => failed(
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

/// The first thing in which the process differs from what was said of it.
fn difference(pid: i32, seen: &Seen) -> Option<String> {
    let look = || -> Result<Option<String>> {
        let status = |field: &str| host::status_field(pid, field).context("the process has ended");
        let mut told = Vec::new();
        for (field, map, ids) in [("Uid", "uid_map", seen.uids), ("Gid", "gid_map", seen.gids)] {
            let map = map_of(pid, map)?;
            // The file system's ID comes last, and nobody is asked for it.
            let found = status(field)?;
            let found: Vec<u32> = found.split(' ').take(3).flat_map(str::parse).collect();
            let outside = ids.map(|id| outside(&map, id));
            let same = found
                .iter()
                .zip(outside)
                .all(|(a, b)| b.is_none_or(|b| *a == b));
            told.push((field.to_owned(), same && found.len() == ids.len()));
        }
        // What is read from /proc is missing if none is mounted.
        for (field, mask) in &seen.capabilities {
            let found = u64::from_str_radix(&status(field)?, 16).ok();
            told.push((field.clone(), found == Some(*mask)));
        }
        let namespaces = host::namespaces(&pid.to_string())?;
        for (kind, inode) in &seen.namespaces {
            told.push((
                format!("{kind} namespace"),
                namespaces.get(kind) == Some(inode),
            ));
        }
        if !seen.mounts.is_empty() {
            // What is mounted there: the roots of cgroup mounts and the peer groups
            // depend on who reads (cgroup_namespaces(7)).
            let what = |mounts: &[Mount]| -> Vec<_> {
                let place = |mount: &Mount| (mount.mount_point.clone(), mount.fstype.clone());
                mounts.iter().map(place).collect()
            };
            let found = what(&host::mounts(&pid.to_string())?);
            told.push(("list of mounts".to_owned(), found == what(&seen.mounts)));
        }
        Ok(told
            .into_iter()
            .find(|(_, same)| !same)
            .map(|(what, _)| what))
    };
    look().unwrap_or_else(|error| Some(format!("state ({error:#})")))
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
        assert_eq!(difference(own, &seen).as_deref(), Some("Uid"));
    }
}

//! `probe report`: reports everything at once. What cannot be seen is empty: a
//! container without /proc is not an error of the probe.

use std::collections::BTreeMap;
use std::fs;
use std::io::stdin;

use anyhow::{Context, Result};
use check::host;
use check::seen::Seen;
use nix::unistd::{
    getgroups, gethostname, getpgrp, getpid, getppid, getresgid, getresuid, getsid, tcgetpgrp,
};

pub(crate) fn report(args: Vec<String>) -> Result<Seen> {
    let uids = getresuid().context("getresuid")?;
    let gids = getresgid().context("getresgid")?;
    Ok(Seen {
        pid: getpid().as_raw(),
        ppid: getppid().as_raw(),
        pgrp: getpgrp().as_raw(),
        sid: getsid(None).map_or(0, |sid| sid.as_raw()),
        foreground: tcgetpgrp(stdin()).ok().map(|group| group.as_raw()),
        uids: [uids.real, uids.effective, uids.saved].map(|id| id.as_raw()),
        gids: [gids.real, gids.effective, gids.saved].map(|id| id.as_raw()),
        groups: getgroups()
            .context("getgroups")?
            .iter()
            .map(|id| id.as_raw())
            .collect(),
        hostname: gethostname()
            .context("gethostname")?
            .to_string_lossy()
            .into_owned(),
        domainname: rustix::system::uname()
            .domainname()
            .to_string_lossy()
            .into_owned(),
        namespaces: host::namespaces("self").unwrap_or_default(),
        cgroup: lines("/proc/self/cgroup"),
        mounts: host::mounts("self").unwrap_or_default(),
        links: lines("/proc/net/dev")
            .iter()
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect(),
        cwd: std::env::current_dir()
            .map_or_else(|_| String::new(), |dir| dir.display().to_string()),
        root: names("/"),
        processes: names("/proc")
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect(),
        fds: fds(),
        capabilities: masks("Cap"),
        signals: masks("Sig"),
        limits: lines("/proc/self/limits"),
        sysv: host::sysv().unwrap_or_default(),
        posix_queues: host::posix_queues().unwrap_or_default(),
        uid_map: map("/proc/self/uid_map"),
        gid_map: map("/proc/self/gid_map"),
        args,
        env: std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect(),
    })
}

fn lines(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(String::from).collect()
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

fn fds() -> BTreeMap<i32, String> {
    names("/proc/self/fd")
        .iter()
        .filter_map(|name| {
            // The descriptor of the listing is closed by now.
            let target = fs::read_link(format!("/proc/self/fd/{name}")).ok()?;
            Some((name.parse().ok()?, target.display().to_string()))
        })
        .collect()
}

/// The hexadecimal masks of /proc/self/status whose names begin with `prefix`.
fn masks(prefix: &str) -> BTreeMap<String, u64> {
    lines("/proc/self/status")
        .iter()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let mask = u64::from_str_radix(value.trim(), 16).ok()?;
            name.starts_with(prefix).then(|| (name.to_owned(), mask))
        })
        .collect()
}

fn map(file: &str) -> Vec<[u64; 3]> {
    lines(file)
        .iter()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            Some([
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
            ])
        })
        .collect()
}

//! The end of a group's processes without `cgroup.kill`: in v1, and in v2 before
//! Linux 5.14. They are killed one by one until none is left, because they may
//! fork meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::poll::PollFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::group::file;
use crate::group::processes::{kill_each, processes, tree, until_empty, wait_for};

/// Kills all processes of a v2 group one by one.
pub(super) fn kill_v2(dir: &Path, deadline: Instant) -> Result<()> {
    until_empty(dir, deadline, || kill_each(&processes(dir)?))
}

/// Kills all processes of a v1 group, which has no `cgroup.kill`. If this
/// hierarchy has the freezer, they are frozen first, so that none forks
/// meanwhile, and then thawed, because a frozen process does not die.
pub(super) fn kill_v1(dir: &Path, deadline: Instant) -> Result<()> {
    loop {
        freezer(dir, "FROZEN")?;
        let processes = processes(dir)?;
        let mut pidfds: Vec<OwnedFd> = Vec::new();
        for pid in &processes {
            let process = rustix::process::Pid::from_raw(pid.as_raw());
            match process.map(|process| pidfd_open(process, PidfdFlags::empty())) {
                Some(Ok(pidfd)) => pidfds.push(pidfd),
                // It has ended.
                None | Some(Err(Errno::SRCH)) => {}
                Some(Err(errno)) => {
                    return Err(errno).with_context(|| format!("pidfd_open({pid})"));
                }
            }
        }
        kill_each(&processes)?;
        freezer(dir, "THAWED")?;
        let waiting: Vec<_> = pidfds.iter().map(AsFd::as_fd).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        for pidfd in waiting {
            if !wait_for(&[pidfd], PollFlags::POLLIN, deadline)? {
                bail!("{}: processes survive SIGKILL", dir.display());
            }
        }
    }
}

/// Thaws a v1 group and those below it. A frozen process does not die, and the
/// freezer may be in another hierarchy than the one in which the group is
/// killed.
pub(crate) fn thaw(dir: &Path) -> Result<()> {
    freezer(dir, "THAWED")
}

fn freezer(dir: &Path, state: &str) -> Result<()> {
    for group in tree(dir)? {
        let file = group.join("freezer.state");
        if file.exists() {
            file::write(&file, state)?;
        }
    }
    Ok(())
}

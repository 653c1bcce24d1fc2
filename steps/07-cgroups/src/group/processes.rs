//! The processes in a group and below: listed, signalled, awaited.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::group::file;
use crate::group::parent::directories;

/// The group and all groups below it, each before those in it.
pub(crate) fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![dir.to_owned()];
    for below in directories(dir)? {
        all.extend(tree(&below)?);
    }
    Ok(all)
}

/// The processes in the group and below. A missing group has none.
pub(crate) fn processes(dir: &Path) -> Result<Vec<Pid>> {
    let mut all = Vec::new();
    for group in tree(dir)? {
        let text = file::read_if_there(&group.join("cgroup.procs"))?.unwrap_or_default();
        all.extend(
            text.lines()
                .filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?))),
        );
    }
    Ok(all)
}

/// Sends SIGKILL to each process that still exists.
pub(super) fn kill_each(processes: &[Pid]) -> Result<()> {
    for pid in processes {
        match kill(*pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("kill({pid}, SIGKILL)")),
        }
    }
    Ok(())
}

/// Waits until no process is left in a v2 group and below, and calls `each`
/// whenever there are some.
pub(super) fn until_empty(
    dir: &Path,
    deadline: Instant,
    each: impl Fn() -> Result<()>,
) -> Result<()> {
    match until(dir, "populated", 0, deadline, each)? {
        true => Ok(()),
        false => bail!("{}: processes survive SIGKILL", dir.display()),
    }
}

/// Waits until `key` in the `cgroup.events` of a v2 group is `value`, and calls
/// `each` whenever it is not; `false` if it is not before `deadline`.
pub(crate) fn until(
    dir: &Path,
    key: &str,
    value: u64,
    deadline: Instant,
    each: impl Fn() -> Result<()>,
) -> Result<bool> {
    let path = dir.join("cgroup.events");
    let mut events = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    loop {
        let mut text = String::new();
        events.rewind().context("rewind cgroup.events")?;
        events
            .read_to_string(&mut text)
            .context("read cgroup.events")?;
        if file::value_of(&text, key) == Some(value) {
            return Ok(true);
        }
        each()?;
        // POLLPRI reports a change of the file.
        if !wait_for(&[events.as_fd()], PollFlags::POLLPRI, deadline)? {
            return Ok(false);
        }
    }
}

/// Waits for an event on one of `files`; `false` if there is none before
/// `deadline`.
pub(crate) fn wait_for(
    files: &[BorrowedFd<'_>],
    what: PollFlags,
    deadline: Instant,
) -> Result<bool> {
    let mut polled: Vec<PollFd> = files.iter().map(|file| PollFd::new(*file, what)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

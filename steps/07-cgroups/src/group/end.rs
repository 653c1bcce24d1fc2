//! The end of a group: kills its processes, and removes the group and those
//! below it.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::group::file;
use crate::group::parent::{directories, gone};
use crate::host::hierarchy::Version;

/// The time limit for processes to end after SIGKILL. A process that waits for
/// a disk ends only when the disk answers.
const PATIENCE: Duration = Duration::from_secs(10);

// ANCHOR: end
/// Kills the processes in the group `dir` and below, and removes all these
/// groups. A missing group counts as removed.
///
/// # Errors
/// Names the group that could not be emptied within ten seconds.
pub(crate) fn end(dir: &Path, version: Version) -> Result<()> {
    // The common case: the container's processes have ended, and it has made no
    // groups of its own.
    if remove(dir)? {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    match version {
        Version::V2 => kill_v2(dir, deadline)?,
        Version::V1 => kill_v1(dir, deadline)?,
    }
    for group in tree(dir)?.iter().rev() {
        while !remove(group)? {
            // A dead process is counted until the scheduler is done with it,
            // and v1 does not report when that is.
            if Instant::now() > deadline {
                bail!(
                    "rmdir {}: EBUSY: processes are still in it",
                    group.display()
                );
            }
            sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}
// ANCHOR_END: end

/// Kills the processes in the group `dir` and below, and keeps the group.
///
/// # Errors
/// Names the group that could not be emptied within ten seconds.
pub(crate) fn kill_all(dir: &Path, version: Version) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    match version {
        _ if processes(dir)?.is_empty() => Ok(()),
        Version::V2 => kill_v2(dir, until),
        Version::V1 => kill_v1(dir, until),
    }
}

/// Calls rmdir(2) and returns whether the group is gone. `EBUSY` means that it
/// holds processes or groups.
fn remove(dir: &Path) -> Result<bool> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if gone(&e) => Ok(true),
        Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("rmdir {}", dir.display())),
    }
}

/// The group and all groups below it, each before those in it.
fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
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

/// Kills all processes at once with `cgroup.kill`, including those just forked.
/// Before Linux 5.14 they are killed one by one until none is left.
fn kill_v2(dir: &Path, deadline: Instant) -> Result<()> {
    let mut events = File::open(dir.join("cgroup.events"))
        .with_context(|| format!("open {}/cgroup.events", dir.display()))?;
    let at_once = dir.join("cgroup.kill").exists();
    if at_once {
        file::write(&dir.join("cgroup.kill"), "1")?;
    }
    loop {
        let mut text = String::new();
        events.rewind().context("rewind cgroup.events")?;
        events
            .read_to_string(&mut text)
            .context("read cgroup.events")?;
        if file::value_of(&text, "populated") == Some(0) {
            return Ok(());
        }
        if !at_once {
            signal(&processes(dir)?)?;
        }
        // POLLPRI reports a change of the file.
        if !wait_for(&[events.as_fd()], PollFlags::POLLPRI, deadline)? {
            bail!("{}: processes survive SIGKILL", dir.display());
        }
    }
}

/// Kills all processes of a v1 group, which has no `cgroup.kill`. If this
/// hierarchy has the freezer, they are frozen first, so that none forks
/// meanwhile, and then thawed, because a frozen process does not die.
fn kill_v1(dir: &Path, deadline: Instant) -> Result<()> {
    loop {
        freezer(dir, "FROZEN")?;
        let processes = processes(dir)?;
        let pidfds: Vec<OwnedFd> = processes
            .iter()
            .filter_map(|pid| rustix::process::Pid::from_raw(pid.as_raw()))
            .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .collect();
        signal(&processes)?;
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

fn signal(processes: &[Pid]) -> Result<()> {
    for pid in processes {
        match kill(*pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("kill({pid}, SIGKILL)")),
        }
    }
    Ok(())
}

/// Waits for an event on one of `files`; `false` if there is none before
/// `deadline`.
pub(crate) fn wait_for(
    files: &[std::os::fd::BorrowedFd<'_>],
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

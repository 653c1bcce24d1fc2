//! The end of a group: kills its processes, and removes the group and those
//! below it.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::group::file;
use crate::group::kill_legacy;
use crate::group::parent::gone;
use crate::group::processes::{processes, tree, until_empty};
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
        Version::V1 => kill_legacy::kill_v1(dir, deadline)?,
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
        Version::V1 => kill_legacy::kill_v1(dir, until),
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

/// Kills all processes at once with `cgroup.kill`, including those just forked.
fn kill_v2(dir: &Path, deadline: Instant) -> Result<()> {
    let kill = dir.join("cgroup.kill");
    if !kill.exists() {
        return kill_legacy::kill_v2(dir, deadline);
    }
    file::write(&kill, "1")?;
    until_empty(dir, deadline, || Ok(()))
}

//! Uses the resources that control groups limit: memory, CPU time, processes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use check::host;
use check::seen::Attempt;
use check::sys;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};

use crate::attempt::allowed;

/// Allocates memory and writes to every page of it, one MiB at a time; returns
/// how many MiB. Beyond its limit it is killed and does not return.
pub(crate) fn allocate(mib: usize) -> usize {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib {
        all.push(vec![1; 1 << 20]);
    }
    // Read back, so that the compiler cannot omit any of it.
    all.iter()
        .filter(|block| block.iter().all(|byte| *byte == 1))
        .count()
}

/// Spins for `millis` and returns the CPU time used, both in milliseconds.
pub(crate) fn burn(millis: u64) -> nix::Result<u128> {
    let used = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from);
    let before = used()?;
    let end = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    Ok((used()? - before).as_millis())
}

/// Forks until it fails or `count` children exist, then ends them all.
pub(crate) fn fork_many(count: usize) -> Result<Attempt> {
    let mut children = Vec::new();
    let mut errno = None;
    while children.len() < count && errno.is_none() {
        match sys::fork_waiting() {
            Ok(child) => children.push(child),
            Err(e) => errno = Some(e),
        }
    }
    for child in &children {
        kill(*child, Signal::SIGKILL).with_context(|| format!("kill {child}"))?;
        waitpid(*child, None).with_context(|| format!("waitpid {child}"))?;
    }
    let mut attempt = allowed(children.len().to_string());
    if let Some(errno) = errno {
        attempt.allowed = false;
        attempt.errno = format!("{errno:?}");
    }
    Ok(attempt)
}

/// Makes every mounted cgroup file system read-only, in a mount namespace of
/// its own.
pub(crate) fn make_groups_read_only() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("mount(/, MS_REC | MS_PRIVATE)")?;
    for group in host::mounts("self")? {
        if matches!(group.fstype.as_str(), "cgroup" | "cgroup2") {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, group.mount_point.as_str(), none, flags, none)
                .with_context(|| format!("remount {}", group.mount_point))?;
        }
    }
    Ok(())
}

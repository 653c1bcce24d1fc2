//! The OOM killer's work in a group. A process killed by it looks like any
//! other that was sent SIGKILL (cgroup-v2.rst `memory.events`,
//! cgroup-v1/memory.rst `memory.oom_control`).

use anyhow::Result;

use crate::group::Group;
use crate::group::file;
use crate::host::hierarchy::Version;
use crate::limits::units::Bytes;

/// The OOM killer's count, and the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oom {
    /// The number of processes that it killed.
    pub killed: u64,
    /// The group's memory limit; `None` without one.
    pub limit: Option<Bytes>,
}

/// Reads the OOM killer's count for a group and those below it; `None` without
/// the memory controller.
pub(crate) fn of(group: &Group) -> Result<Option<Oom>> {
    // ANCHOR: exercise_oom
    let Some(member) = group.controller("memory") else {
        return Ok(None);
    };
    let (events, limit) = match member.version {
        Version::V1 => ("memory.oom_control", "memory.limit_in_bytes"),
        Version::V2 => ("memory.events", "memory.max"),
    };
    let killed = file::keyed(&member.dir.join(events), "oom_kill")?.unwrap_or(0);
    let limit = file::read_if_there(&member.dir.join(limit))?
        .and_then(|text| text.parse().ok())
        .filter(|limit| *limit < UNLIMITED)
        .map(Bytes);
    Ok(Some(Oom { killed, limit }))
    // ANCHOR_END: exercise_oom
}

/// The bound above which a v1 value means no limit. v1 then shows the largest
/// number of whole pages, which depends on the page size; no machine has half
/// as much memory.
pub(crate) const UNLIMITED: u64 = i64::MAX as u64 / 2;

//! Freezing and thawing of a group (cgroup-v2.rst `cgroup.freeze`,
//! cgroup-v1/freezer-subsystem.rst).
//!
//! The processes do not notice: no signal is involved. cgroups-rs writes the
//! file that requests it; the wait until it is done, during which v1 shows
//! `FREEZING`, is our own.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cgroups_rs::freezer::{FreezerController, FreezerState};

use crate::group::file;
use crate::group::processes::until;
use crate::group::{Group, Member};
use crate::host::hierarchy::Version;

/// The time limit for a change of state. A process in a long system call
/// freezes only when that returns.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state of a group's freezer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// No process of the group runs.
    Frozen,
    /// The processes run.
    Thawed,
}

/// Brings the group and all groups below it into `state`, and waits until they
/// are.
///
/// # Errors
/// Names the group that did not change within ten seconds; it is then thawed.
pub(crate) fn set(group: &Group, state: GroupState) -> Result<()> {
    let member = freezer(group)?;
    let controller = FreezerController::new(member.dir.clone(), member.version == Version::V2);
    match state {
        GroupState::Frozen => controller.freeze(),
        GroupState::Thawed => controller.thaw(),
    }
    .with_context(|| format!("{state:?}: {}", member.dir.display()))?;
    let done = match member.version {
        Version::V1 => wait_v1(&controller, state)?,
        Version::V2 => wait_v2(member, state)?,
    };
    if !done && state == GroupState::Thawed {
        bail!("{} is frozen after ten seconds", member.dir.display());
    }
    if !done {
        controller.thaw().context("thaw")?;
        bail!("{} did not freeze in ten seconds", member.dir.display());
    }
    Ok(())
}

/// The state of the group; `None` if it cannot be frozen.
pub(crate) fn get(group: &Group) -> Result<Option<GroupState>> {
    let Ok(member) = freezer(group) else {
        return Ok(None);
    };
    let frozen = match member.version {
        Version::V1 => {
            file::read_if_there(&member.dir.join("freezer.state"))?.map(|state| state != "THAWED")
        }
        Version::V2 => file::keyed(&member.dir.join("cgroup.events"), "frozen")?.map(|n| n == 1),
    };
    Ok(frozen.map(|frozen| match frozen {
        true => GroupState::Frozen,
        false => GroupState::Thawed,
    }))
}

/// The member that can be frozen. On v2 every group can, on v1 that takes the
/// freezer controller.
fn freezer(group: &Group) -> Result<&Member> {
    group
        .controller("freezer")
        .or_else(|| group.v2())
        .with_context(|| format!("{} is in no hierarchy that can freeze", group.name))
}

fn wait_v1(controller: &FreezerController, state: GroupState) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Only a read of the file makes the kernel update the state.
        let now = controller.state().context("read freezer.state")?;
        match (state, now) {
            (GroupState::Frozen, FreezerState::Frozen)
            | (GroupState::Thawed, FreezerState::Thawed) => {
                return Ok(true);
            }
            _ => sleep(Duration::from_millis(1)),
        }
    }
    Ok(false)
}

fn wait_v2(member: &Member, state: GroupState) -> Result<bool> {
    let wanted = u64::from(state == GroupState::Frozen);
    let deadline = Instant::now() + PATIENCE;
    until(&member.dir, "frozen", wanted, deadline, || Ok(()))
}

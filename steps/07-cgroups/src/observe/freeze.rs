//! Stopping a group where it stands, and letting it go on (cgroup-v2.rst
//! `cgroup.freeze`, cgroup-v1/freezer-subsystem.rst).
//!
//! The processes cannot tell: no signal is involved. cgroups-rs writes the file
//! that asks for it; waiting until it is done, and until which v1 says
//! `FREEZING`, is ours.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cgroups_rs::freezer::{FreezerController, FreezerState};

use nix::poll::PollFlags;

use crate::group::end::wait_for;
use crate::group::file;
use crate::group::{Group, Member};
use crate::host::hierarchy::Version;

/// A process in the middle of a long system call is frozen when that returns.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the group is to be frozen or to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No process in it runs.
    Frozen,
    /// They run.
    Thawed,
}

/// Brings the group and all groups below it into `state`, and waits until they
/// are.
///
/// # Errors
/// Names the group whose processes did not freeze within ten seconds; it is
/// thawed again.
pub(crate) fn set(group: &Group, state: State) -> Result<()> {
    // ANCHOR: exercise_freeze
    let member = freezer(group)?;
    let controller = FreezerController::new(member.dir.clone(), member.version == Version::V2);
    match state {
        State::Frozen => controller.freeze(),
        State::Thawed => controller.thaw(),
    }
    .with_context(|| format!("{state:?}: {}", member.dir.display()))?;
    let done = match member.version {
        Version::V1 => wait_v1(&controller, state)?,
        Version::V2 => wait_v2(member, state)?,
    };
    if !done {
        controller.thaw().context("thaw")?;
        bail!("{} did not freeze in ten seconds", member.dir.display());
    }
    Ok(())
    // ANCHOR_END: exercise_freeze
}

/// Whether the group is frozen; `None` where it cannot be.
///
/// # Errors
/// Those of reading the files.
pub(crate) fn get(group: &Group) -> Result<Option<State>> {
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
        true => State::Frozen,
        false => State::Thawed,
    }))
}

/// Where the group can be frozen. On v2 it is a part of every group, on v1 a
/// controller.
fn freezer(group: &Group) -> Result<&Member> {
    group
        .controller("freezer")
        .or_else(|| group.v2())
        .with_context(|| format!("{} is in no hierarchy that can freeze", group.name))
}

fn wait_v1(controller: &FreezerController, state: State) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Reading the file is what makes the kernel look again.
        let now = controller.state().context("read freezer.state")?;
        match (state, now) {
            (State::Frozen, FreezerState::Frozen) | (State::Thawed, FreezerState::Thawed) => {
                return Ok(true);
            }
            _ => sleep(Duration::from_millis(1)),
        }
    }
    Ok(false)
}

fn wait_v2(member: &Member, state: State) -> Result<bool> {
    let wanted = u64::from(state == State::Frozen);
    let deadline = Instant::now() + PATIENCE;
    let path = member.dir.join("cgroup.events");
    let mut events = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    loop {
        let mut text = String::new();
        events.rewind().context("rewind cgroup.events")?;
        events
            .read_to_string(&mut text)
            .context("read cgroup.events")?;
        if file::value_of(&text, "frozen") == Some(wanted) {
            return Ok(true);
        }
        if !wait_for(&[events.as_fd()], PollFlags::POLLPRI, deadline)? {
            return Ok(false);
        }
    }
}

//! Cgroups of ours, in every hierarchy: cgroups(7).
//!
//! Step 07 made most of them. It knows best how to let a hierarchy go, without
//! harm to what a learner has moved into it, and what it has switched on above
//! its groups. What it leaves, or all of it where it has not been built, is
//! removed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::Broom;
use super::files::RUN;
use super::running::kill_and_wait;
use crate::{host, workspace};

/// Removes them, and ends what runs in them.
///
/// # Errors
/// Those of reading mountinfo.
pub fn sweep(broom: &mut Broom) -> Result<()> {
    by_step_07(broom)?;
    for mount in host::mounts("self")? {
        if !matches!(mount.fstype.as_str(), "cgroup" | "cgroup2") {
            continue;
        }
        let top = PathBuf::from(&mount.mount_point);
        // A hierarchy that is mounted there is ours with all that is in it.
        let all = top.starts_with(RUN);
        let mut found = Vec::new();
        find(&top, all, &mut found);
        for group in found {
            broom.take(&format!("cgroup {}", group.display()), || remove(&group));
        }
    }
    Ok(())
}

fn by_step_07(broom: &mut Broom) -> Result<()> {
    let program = workspace::bin().join("step-07");
    if broom.is_dry() || !program.exists() {
        return Ok(());
    }
    let output = Command::new(&program)
        .arg("restore")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        broom.took(line.strip_prefix("removed ").unwrap_or(line));
    }
    Ok(())
}

/// The topmost cgroups of ours below `dir`.
fn find(dir: &Path, all: bool, found: &mut Vec<PathBuf>) {
    for child in children(dir) {
        let name = child.file_name().unwrap_or_default().to_string_lossy();
        if all || name == "drydock" || name.starts_with("drydock-") || name.starts_with("drydock.")
        {
            found.push(child);
        } else {
            find(&child, all, found);
        }
    }
}

/// Removes a cgroup, those in it first, and ends what runs there.
///
/// # Errors
/// If a process does not end, and those of rmdir(2).
pub fn remove(group: &Path) -> Result<()> {
    thaw(group);
    let procs = group.join("cgroup.procs");
    let text = fs::read_to_string(&procs).with_context(|| format!("read {}", procs.display()))?;
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    // A learner may have moved the shell in here from which this was called.
    pids.retain(|pid| *pid != Pid::this().as_raw());
    kill_and_wait(&pids)?;
    for child in children(group) {
        remove(&child)?;
    }
    fs::remove_dir(group).with_context(|| format!("rmdir {}", group.display()))
}

/// A frozen process does not die: on v1 it has to be thawed first.
fn thaw(group: &Path) {
    let state = group.join("freezer.state");
    if state.exists() && fs::write(&state, "THAWED").is_err() {
        // Then the processes do not end, which is said.
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    // A group may vanish while it is looked at.
    let mut all: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    all.sort();
    all
}

//! Removes our cgroups from every hierarchy: cgroups(7).
//!
//! Step 07 made most of them, and knows how to release a hierarchy without harm
//! to what a learner has moved into it, and to what it has enabled above its
//! groups. What it leaves, or everything if it has not been built, is removed
//! here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::Broom;
use super::files::RUN;
use super::running::kill_and_wait;
use crate::{host, workspace};

/// Removes our cgroups and ends the processes in them.
pub fn sweep(broom: &mut Broom) -> Result<()> {
    by_step_07(broom)?;
    for mount in host::mounts("self")? {
        if !matches!(mount.fstype.as_str(), "cgroup" | "cgroup2") {
            continue;
        }
        let top = PathBuf::from(&mount.mount_point);
        // A hierarchy that is mounted there is ours completely.
        let all = top.starts_with(RUN);
        let mut found = Vec::new();
        find(&top, all, &mut found);
        for group in found {
            broom.take(&format!("cgroup {}", group.display()), || remove(&group));
        }
    }
    for place in unmounted()? {
        let mut found = Vec::new();
        find(&place, false, &mut found);
        for dir in found {
            broom.take(&format!("directory {}", dir.display()), || {
                fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
            });
        }
    }
    Ok(())
}

/// The directories beside the hierarchies of version 1 on which none is mounted.
/// podman's monitor makes directories there all the same, as if they were groups.
pub fn unmounted() -> Result<Vec<PathBuf>> {
    let top = Path::new("/sys/fs/cgroup");
    let mounts = host::mounts("thread-self")?;
    let is_at = |path: &Path| mounts.iter().any(|one| Path::new(&one.mount_point) == path);
    let of_tmpfs = |one: &host::Mount| Path::new(&one.mount_point) == top && one.fstype == "tmpfs";
    if !mounts.iter().any(of_tmpfs) {
        return Ok(Vec::new());
    }
    let mut all = children(top);
    all.retain(|path| !is_at(path));
    Ok(all)
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

/// Finds the topmost of our cgroups below `dir`.
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

/// Removes a cgroup and the cgroups in it, and ends the processes in them.
/// Fails if one does not end.
pub fn remove(group: &Path) -> Result<()> {
    thaw(group);
    let procs = group.join("cgroup.procs");
    let text = fs::read_to_string(&procs).with_context(|| format!("read {}", procs.display()))?;
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    // A learner may have moved the shell that called this into the cgroup.
    pids.retain(|pid| *pid != Pid::this().as_raw());
    kill_and_wait(&pids)?;
    for child in children(group) {
        remove(&child)?;
    }
    fs::remove_dir(group).with_context(|| format!("rmdir {}", group.display()))
}

/// Thaws a cgroup on v1: a frozen process there does not die.
fn thaw(group: &Path) {
    let state = group.join("freezer.state");
    if state.exists() && fs::write(&state, "THAWED").is_err() {
        // The processes then do not end, which is reported.
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    // A group may vanish during the listing.
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

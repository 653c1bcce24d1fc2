//! A mount namespace for this process alone, for the tools that look into
//! layers: whatever they mount goes with them, also by `kill -9`.

use std::fs;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Makes every mount of this namespace a slave of the host's: what is mounted
/// here does not appear there (mount_namespaces(7)).
///
/// # Errors
/// Those of mount(2).
pub fn cut_off() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("mount(\"/\", MS_REC | MS_SLAVE)")
}

/// Enters a mount namespace of the caller's own; without root in a user
/// namespace as well, in which the caller is root.
///
/// # Errors
/// Those of unshare(2).
pub fn enter() -> Result<()> {
    if !geteuid().is_root() {
        become_root_inside()?;
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    cut_off()
}

/// What `step-05 --map-root` does for its child.
fn become_root_inside() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER)")?;
    for (file, content) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, content).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

//! systemd, which manages the v2 tree of most hosts
//! (systemd.resource-control(5), org.freedesktop.systemd1(5)). A group in its
//! tree is ours only if systemd has marked it as delegated, with an extended
//! attribute.
//!
//! cgroups-rs from version 0.4 on asks systemd over D-Bus, but only the
//! system's manager and not a user's, and with threads, which a process that is
//! about to clone must not have. busctl(1), which comes with systemd, makes one
//! call and ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::unistd::geteuid;
use rustix::fs::getxattr;

use crate::host::layout::Layout;

/// The time limit for systemd to make a scope.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether systemd manages the tree whose root is `root`: systemd runs
/// (sd_booted(3)), and this is the root of all groups, not that of a container.
pub(crate) fn manages(root: &Path) -> bool {
    Path::new("/run/systemd/system").is_dir() && !root.join("cgroup.type").exists()
}

/// Whether systemd has delegated the group `dir` to the processes in it.
pub(crate) fn delegated(dir: &Path) -> bool {
    // user.delegate is for processes that may not read trusted attributes.
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        getxattr(dir, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// Asks systemd for a new delegated scope with this process in it. The scope
/// ends with its last process.
///
/// # Errors
/// The message of busctl, or a move that takes more than ten seconds.
pub(crate) fn move_to_scope() -> Result<()> {
    let remedy = "start the launcher with systemd-run --scope -p Delegate=yes (--user for a user)";
    let pid = std::process::id().to_string();
    let scope = format!("drydock-{pid}.scope");
    let bus = if geteuid().is_root() {
        "--system"
    } else {
        "--user"
    };
    say!("ask systemd for {scope}");
    let output = Command::new("busctl")
        .args([
            bus,
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
        ])
        .args(["org.freedesktop.systemd1.Manager", "StartTransientUnit"])
        // Name, mode, four properties, no further units.
        .args(["ssa(sv)a(sa(sv))", &scope, "fail", "4"])
        .args(["PIDs", "au", "1", &pid])
        .args(["Delegate", "b", "true"])
        .args(["CollectMode", "s", "inactive-or-failed"])
        .args(["Description", "s", "A container of Drydock"])
        .arg("0")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run busctl, to ask systemd for a group; {remedy}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; ");
        bail!("busctl call StartTransientUnit: {said}; {remedy}");
    }
    // The answer is the number of a job, which may still run.
    let deadline = Instant::now() + PATIENCE;
    while !own_group()?.is_some_and(|own| own.ends_with(&scope)) {
        if Instant::now() > deadline {
            bail!("systemd did not move the launcher into {scope}; {remedy}");
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn own_group() -> Result<Option<PathBuf>> {
    Ok(Layout::detect()?
        .v2()
        .map(|hierarchy| hierarchy.own.clone()))
}

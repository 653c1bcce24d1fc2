//! Groups on v1: one in each hierarchy (cgroup-v1/cgroups.rst).
//!
//! The child moves itself: while it is single-threaded, it writes `0` into each
//! `tasks`. Another process that writes the PID into `cgroup.procs` has to stop
//! every fork on the machine first and wait for an RCU grace period, which
//! takes longer than the whole rest of a start. The files are opened
//! beforehand, because the child may no longer have the paths or the
//! permission.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::say;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::group::file;
use crate::group::parent::{NAME, Parent, ours};
use crate::group::{Member, make};
use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::layout::Layout;

/// The controllers in which every container gets a group, so that it can be
/// limited, accounted for, frozen and ended. Other controllers are used on
/// request only.
pub(crate) const ALWAYS: [&str; 7] = [
    "cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer",
];

/// Sorts the hierarchies into the order in which groups are made: v1 before v2,
/// and within a version first those in which every container has a group.
pub(crate) fn ordered(mut layout: Layout) -> Layout {
    let order = |hierarchy: &Hierarchy| (hierarchy.version, !hierarchy.has(&ALWAYS));
    layout.hierarchies.sort_by_key(order);
    layout
}

/// The hierarchies that the caller sees, [`ordered`].
pub(crate) fn layout() -> Result<Layout> {
    Layout::detect().map(ordered)
}

/// The directory in which to make groups: `cgroup_parent`, or `drydock` in the
/// root of the mount if the caller may write there, else in the caller's own
/// group.
///
/// # Errors
/// A hierarchy that is mounted read-only, or that the caller may not write.
pub(crate) fn parent_of(hierarchy: &Hierarchy, cgroup_parent: Option<&Path>) -> Result<PathBuf> {
    let top = &hierarchy.mount_point;
    if hierarchy.read_only {
        bail!("{} is mounted read-only", top.display());
    }
    if let Some(asked) = cgroup_parent {
        return below(top, asked);
    }
    [top, &hierarchy.own]
        .into_iter()
        .find(|dir| may_make_groups(dir))
        .map(|dir| dir.join(NAME))
        .with_context(|| format!("{} is not writable for this user", top.display()))
}

/// The directory `path`, absolute or relative, below `top`.
///
/// # Errors
/// A path that contains `..` or begins with `.`, or that names no group.
pub(crate) fn below(top: &Path, path: &Path) -> Result<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::RootDir);
    let mut dir = top.to_owned();
    for part in parts {
        let Component::Normal(part) = part else {
            bail!(
                "--cgroup-parent {}: give a path without . and ..",
                path.display()
            );
        };
        dir.push(part);
    }
    if dir == top {
        bail!("--cgroup-parent {}: name a group", path.display());
    }
    Ok(dir)
}

/// Whether the caller may make groups in `dir`.
pub(crate) fn may_make_groups(dir: &Path) -> bool {
    accessat(
        CWD,
        dir,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .is_ok()
}

/// Makes the group `name` in one hierarchy, and its parent if that is missing.
pub(crate) fn create(hierarchy: &Hierarchy, parent: &Path, name: &str) -> Result<Member> {
    let has_cpuset = hierarchy.has(&["cpuset"]);
    let parent = Parent::enter(parent)?;
    if has_cpuset && ours(&parent.dir) {
        fill_cpuset(&parent.dir)?;
    }
    let (dir, lock) = make(&parent, name)?;
    let member = Member {
        version: Version::V1,
        controllers: hierarchy.controllers.clone(),
        dir,
        lock: Some(lock),
    };
    if has_cpuset {
        fill_cpuset(&member.dir)?;
    }
    Ok(member)
}

/// Copies the CPUs and memory nodes of the group above into a new v1 cpuset. A
/// new one has none, and no process may enter it until it has both (`ENOSPC`).
pub(crate) fn fill_cpuset(dir: &Path) -> Result<()> {
    let Some(above) = dir.parent() else {
        return Ok(());
    };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if file::read(&dir.join(name))?.is_empty() {
            file::write(&dir.join(name), &file::read(&above.join(name))?)?;
        }
    }
    Ok(())
}

/// Opens the `tasks` file of a group, for the child to write itself into.
pub(crate) fn open_tasks(member: &Member) -> Result<File> {
    let tasks = member.dir.join("tasks");
    OpenOptions::new()
        .write(true)
        .open(&tasks)
        .with_context(|| format!("open {}", tasks.display()))
}

// ANCHOR: enter
/// Moves the calling thread, which must be the only one of its process.
///
/// # Errors
/// `ENOSPC` from a cpuset without CPUs or nodes; `EACCES` if the launcher's
/// user may not move its processes.
pub(crate) fn enter(tasks: &mut File, dir: &Path) -> Result<()> {
    say!("write 0 to {}/tasks", dir.display());
    tasks
        .write_all(b"0")
        .with_context(|| format!("write 0 to {}/tasks", dir.display()))
}
// ANCHOR_END: enter

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_stays_below_the_root_of_the_hierarchy() {
        let top = Path::new("/sys/fs/cgroup/memory");
        for path in ["/a/b", "a/b"] {
            assert_eq!(below(top, Path::new(path)).unwrap(), top.join("a/b"));
        }
        for path in ["/", "", "../x", "/a/../../x"] {
            assert!(below(top, Path::new(path)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_read_only_hierarchy_is_named() {
        let hierarchy = Hierarchy {
            version: Version::V1,
            controllers: vec!["memory".into()],
            name: None,
            mount_point: "/sys/fs/cgroup/memory".into(),
            own: "/sys/fs/cgroup/memory".into(),
            read_only: true,
        };
        let error = parent_of(&hierarchy, None).unwrap_err().to_string();
        assert_eq!(error, "/sys/fs/cgroup/memory is mounted read-only");
    }
}

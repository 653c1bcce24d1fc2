//! Groups on v1: one in each hierarchy (cgroup-v1/cgroups.rst).
//!
//! The child moves itself: still single-threaded, it writes `0` into each
//! `tasks`. Another process that writes the PID into `cgroup.procs` has to stop
//! every fork on the machine first and wait for an RCU grace period, which
//! takes longer than all the rest of a start. The files are opened beforehand,
//! because the child may have neither the paths nor the permission any more.

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
/// limited, accounted for, frozen and ended. Others only where they are asked
/// for.
pub(crate) const ALWAYS: [&str; 7] = [
    "cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer",
];

/// The hierarchies in the order in which groups are made: within a version those
/// first in which every container has one.
pub(crate) fn ordered(mut layout: Layout) -> Layout {
    let order = |hierarchy: &Hierarchy| (hierarchy.version, !hierarchy.has(&ALWAYS));
    layout.hierarchies.sort_by_key(order);
    layout
}

/// The directory in which to make groups: `cgroup_parent`, or `drydock` in the
/// topmost group that the caller may write. The root group, for root.
///
/// # Errors
/// Says why there is none.
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

/// `path`, which is absolute or not, below `top`.
///
/// # Errors
/// For a path with `..` in it.
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

/// Makes the group `name` in one hierarchy, and the parent if it is missing.
///
/// # Errors
/// Those of mkdir(2) and of the files of cpuset.
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

/// A new v1 cpuset has no CPU and no memory node, and no process may enter it
/// until it has both (`ENOSPC`): the parent's are copied.
fn fill_cpuset(dir: &Path) -> Result<()> {
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

/// The `tasks` file of a group, open for the child to write itself into.
///
/// # Errors
/// Those of open(2).
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
/// `ENOSPC` from a cpuset without CPUs or nodes; `EACCES` where the launcher's
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

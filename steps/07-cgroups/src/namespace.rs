//! The cgroup namespace (cgroup_namespaces(7)): what the container sees of the
//! groups it is in, in /proc/self/cgroup and in /sys/fs/cgroup.
//!
//! `CLONE_NEWCGROUP` makes the group of the *caller* the root of the new
//! namespace. Given to clone(2) it would be that of the launcher, except for
//! the v2 group of `CLONE_INTO_CGROUP`. So the child calls unshare(2) itself,
//! once it is in its group, whichever the version.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use process::{Isolation, say};
use uts::{Namespace, NamespaceMode};

use crate::layout::{Hierarchy, Layout, Version};

/// Where the groups are seen.
const PLACE: &str = "/sys/fs/cgroup";

// ANCHOR: enter
/// Enters the cgroup namespace that was asked for. The caller is in its group.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` where the kernel has none.
pub(crate) fn enter(namespace: &Namespace) -> Result<()> {
    match (namespace.mode(), namespace.joins()) {
        (NamespaceMode::Private, _) => {
            say!("unshare(CLONE_NEWCGROUP)");
            unshare(CloneFlags::CLONE_NEWCGROUP).context("unshare(CLONE_NEWCGROUP)")
        }
        (_, Some((process, kind))) => {
            setns(process, kind).with_context(|| format!("setns(--cgroupns {})", namespace.mode()))
        }
        _ => Ok(()),
    }
}
// ANCHOR_END: enter

/// `/sys/fs/cgroup` inside: what the cgroup namespace shows, read-only, laid
/// out as on the host. Comes behind the mount namespace in the list, and acts
/// in the container's root.
///
/// The file systems are mounted afresh: a mount shows what the namespace of the
/// process that mounts it shows. That costs nothing in a new cgroup namespace.
/// In the first one, with `--cgroupns host`, mounting cgroup2 takes the kernel 8
/// to 16 ms.
pub struct CgroupView {
    layout: Rc<OnceCell<Layout>>,
    wanted: bool,
}

impl CgroupView {
    pub(crate) fn new(layout: Rc<OnceCell<Layout>>, wanted: bool) -> Self {
        CgroupView { layout, wanted }
    }
}

impl Isolation for CgroupView {
    fn name(&self) -> &'static str {
        "cgroup view"
    }

    fn in_container(&mut self) -> Result<()> {
        let Some(layout) = self.layout.get().filter(|_| self.wanted) else {
            return Ok(());
        };
        let place = Path::new(PLACE);
        if !place.is_dir() {
            say!("no {PLACE} to show the groups in");
            return Ok(());
        }
        match show(layout, place) {
            Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::EPERM) => {
                say!("without {PLACE}: {error:#}");
                Ok(())
            }
            other => other,
        }
    }
}

fn show(layout: &Layout, place: &Path) -> Result<()> {
    let v1 = layout
        .hierarchies
        .iter()
        .filter(|h| h.version == Version::V1);
    if v1.clone().next().is_none() {
        return match layout.v2() {
            Some(_) => mount_ro("cgroup2", place, None),
            None => Ok(()),
        };
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        flags,
        Some("mode=755,size=64k"),
    )
    .with_context(|| format!("mount(tmpfs, {PLACE})"))?;
    for hierarchy in v1 {
        let (name, options) = names(hierarchy);
        let dir = place.join(&name);
        make_dir(&dir)?;
        mount_ro("cgroup", &dir, Some(&options))?;
        // Programs look for a controller under its own name.
        for controller in hierarchy.controllers.iter().filter(|c| **c != name) {
            let link = place.join(controller);
            symlink(&name, &link).with_context(|| format!("symlink {}", link.display()))?;
        }
    }
    if layout.v2().is_some() {
        make_dir(&place.join("unified"))?;
        mount_ro("cgroup2", &place.join("unified"), None)?;
    }
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("mount({PLACE}, MS_REMOUNT | MS_RDONLY)"))
}

/// The directory for a v1 hierarchy, and the options that name it to mount(2).
fn names(hierarchy: &Hierarchy) -> (String, String) {
    let controllers = hierarchy.controllers.join(",");
    match (&hierarchy.name, controllers.is_empty()) {
        (Some(name), true) => (name.clone(), format!("none,name={name}")),
        (Some(name), false) => (controllers.clone(), format!("{controllers},name={name}")),
        (None, _) => (controllers.clone(), controllers),
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("mkdir {}", dir.display()))
}

fn mount_ro(fstype: &str, target: &Path, options: Option<&str>) -> Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("cgroup"), target, Some(fstype), flags, options).with_context(|| {
        let options = options.map_or(String::new(), |options| format!(", {options}"));
        format!("mount({fstype}, {}{options})", target.display())
    })
}

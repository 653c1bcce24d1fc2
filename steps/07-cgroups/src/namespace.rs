//! The cgroup namespace (cgroup_namespaces(7)): the container's view of its
//! groups, in /proc/self/cgroup and in /sys/fs/cgroup.
//!
//! `CLONE_NEWCGROUP` makes the group of the *caller* the root of the new
//! namespace. With clone(2) that would be the launcher's group, except for the
//! v2 group of `CLONE_INTO_CGROUP`. So the child calls unshare(2) itself, when
//! it is in its groups, on v1 and on v2 alike.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use kit::{say, warn};
use mount::detached::{self, Detached, FsOption, MountAttrFlags};
use mount::{MountSettings, RootTree};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;
use process::{Isolation, inside};
use uts::{Namespace, NamespaceMode};

use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::layout::Layout;

/// The mount point of the groups in the container.
const PLACE: &str = "/sys/fs/cgroup";

// ANCHOR: enter
/// Enters the requested cgroup namespace. The caller is already in its groups.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `EINVAL` if the kernel has no cgroup
/// namespaces.
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

/// The isolation that mounts `/sys/fs/cgroup`: the view of the cgroup
/// namespace, read-only, in the host's layout. Add it after the mount
/// namespace; it acts in the container's root.
///
/// The file systems are new mounts: a mount shows the namespace of the process
/// that mounts it. In a new cgroup namespace that is cheap. In the initial one,
/// with `--cgroupns host`, a mount of cgroup2 takes the kernel 8 to 16 ms.
pub struct CgroupView {
    layout: Rc<OnceCell<Layout>>,
    tree: RootTree,
}

impl CgroupView {
    pub(crate) fn new(layout: Rc<OnceCell<Layout>>, tree: RootTree) -> Self {
        CgroupView { layout, tree }
    }

    /// Leaves the place to a mount of the user's, if `mounts` has one there.
    #[must_use]
    pub fn beside(mut self, mounts: &MountSettings) -> Self {
        if mounts.mounts_on(Path::new(PLACE)) {
            self.layout = Rc::default();
        }
        self
    }
}

impl Isolation for CgroupView {
    fn name(&self) -> &'static str {
        "cgroup view"
    }

    fn in_container(&mut self) -> Result<()> {
        let Some(layout) = self.layout.get().filter(|_| self.tree == RootTree::Own) else {
            return Ok(());
        };
        // A sysfs has no other file of this name. An image's own mount on /sys
        // may contain anything, and then the groups are not shown.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let place = match inside::open(Path::new(PLACE), flags) {
            Ok(place) => place,
            Err(errno @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => {
                say!("no {PLACE} to show the groups in: {errno}");
                return Ok(());
            }
            Err(errno) => return Err(errno).with_context(|| format!("open({PLACE})")),
        };
        show(layout, place.as_fd(), Rights::ReadOnly)
    }
}

/// A mount of a cgroup file system; `None`, with a warning, if the kernel
/// refuses it with `EPERM`.
fn unless_refused(made: Result<Detached>) -> Result<Option<Detached>> {
    match made {
        Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::EPERM) => {
            warn!("cgroups: {PLACE} does not show the groups: {error:#}");
            Ok(None)
        }
        made => made.map(Some),
    }
}

/// The flags of the mounts: the groups are for reading only.
const SHOWN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC)
    .union(MountAttrFlags::MOUNT_ATTR_RDONLY);

impl Rights {
    fn attributes(self) -> MountAttrFlags {
        match self {
            Rights::ReadOnly => SHOWN,
            Rights::Writable => SHOWN.difference(MountAttrFlags::MOUNT_ATTR_RDONLY),
        }
    }
}

/// What the container may do with its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read.
    ReadOnly,
    /// Make groups of its own below, and set limits there.
    Writable,
}

/// Mounts the directories of groups on `place`: without a cgroup namespace, a
/// new mount would show the groups of the whole host.
pub(crate) fn bind(
    layout: &Layout,
    place: BorrowedFd<'_>,
    rights: Rights,
    dir: impl Fn(&Hierarchy) -> Option<PathBuf>,
) -> Result<()> {
    let copy = |hierarchy: &Hierarchy| -> Result<Option<Detached>> {
        let Some(dir) = dir(hierarchy) else {
            return Ok(None);
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = open(&dir, flags, Mode::empty()).with_context(|| format!("open({dir:?})"))?;
        Detached::copy_of_fd(open.as_fd(), &dir).map(Some)
    };
    let v1 = layout
        .hierarchies
        .iter()
        .filter(|h| h.version == Version::V1);
    if v1.clone().next().is_none() {
        return match layout.v2().map(copy).transpose()?.flatten() {
            Some(mount) => mount.attach_with(rights.attributes(), place).map(drop),
            None => Ok(()),
        };
    }
    let top = tmpfs()?.attach(place)?;
    let top = top.as_fd();
    for hierarchy in v1 {
        if let Some(mount) = copy(hierarchy)? {
            let (name, _) = names(hierarchy);
            mount.attach_with(rights.attributes(), make_dir(top, &name)?.as_fd())?;
            alias(top, hierarchy, &name)?;
        }
    }
    if let Some(mount) = layout.v2().map(copy).transpose()?.flatten() {
        mount.attach_with(rights.attributes(), make_dir(top, "unified")?.as_fd())?;
    }
    match rights {
        Rights::ReadOnly => detached::make_read_only(top).context(PLACE),
        Rights::Writable => Ok(()),
    }
}

/// Mounts the groups on `place` as the roots of the caller's cgroup namespace.
pub(crate) fn show(layout: &Layout, place: BorrowedFd<'_>, rights: Rights) -> Result<()> {
    let attributes = rights.attributes();
    let v1 = layout
        .hierarchies
        .iter()
        .filter(|h| h.version == Version::V1);
    if v1.clone().next().is_none() {
        if layout.v2().is_some()
            && let Some(mount) = unless_refused(Detached::new("cgroup2", &[], attributes))?
        {
            mount.attach(place)?;
        }
        return Ok(());
    }
    let tmpfs = tmpfs()?;
    // All are made before one is attached, so a refusal leaves nothing visible.
    let mut shown = Vec::new();
    for hierarchy in v1 {
        let (name, options) = names(hierarchy);
        let options: Vec<FsOption<'_>> = options.iter().map(|text| option(text)).collect();
        let Some(mount) = unless_refused(Detached::new("cgroup", &options, attributes))? else {
            return Ok(());
        };
        shown.push((name, hierarchy, mount));
    }
    let mut v2 = None;
    if layout.v2().is_some() {
        v2 = unless_refused(Detached::new("cgroup2", &[], attributes))?;
        if v2.is_none() {
            return Ok(());
        }
    }
    let top = tmpfs.attach(place)?;
    let top = top.as_fd();
    for (name, hierarchy, mount) in shown {
        mount.attach(make_dir(top, &name)?.as_fd())?;
        alias(top, hierarchy, &name)?;
    }
    if let Some(mount) = v2 {
        mount.attach(make_dir(top, "unified")?.as_fd())?;
    }
    match rights {
        Rights::ReadOnly => detached::make_read_only(top).context(PLACE),
        Rights::Writable => Ok(()),
    }
}

/// The file system that holds the directories of the hierarchies.
fn tmpfs() -> Result<Detached> {
    let options = [("mode", Some("755")), ("size", Some("64k"))];
    let writable = SHOWN.difference(MountAttrFlags::MOUNT_ATTR_RDONLY);
    Detached::new("tmpfs", &options, writable)
}

/// Makes a link for each controller of a hierarchy that has several: programs
/// look for a controller by its own name.
fn alias(top: BorrowedFd<'_>, hierarchy: &Hierarchy, name: &str) -> Result<()> {
    for controller in hierarchy.controllers.iter().filter(|c| *c != name) {
        symlinkat(name, top, &**controller)
            .with_context(|| format!("symlinkat({PLACE}/{controller})"))?;
    }
    Ok(())
}

/// The directory for a v1 hierarchy, and the mount options that identify it.
fn names(hierarchy: &Hierarchy) -> (String, Vec<String>) {
    let mut options = hierarchy.controllers.clone();
    let directory = match (&hierarchy.name, options.is_empty()) {
        (Some(name), true) => {
            options.push("none".to_owned());
            name.clone()
        }
        _ => options.join(","),
    };
    options.extend(hierarchy.name.iter().map(|name| format!("name={name}")));
    (directory, options)
}

fn option(text: &str) -> FsOption<'_> {
    match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    }
}

fn make_dir(top: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let failed = || format!("mkdirat({PLACE}/{name})");
    mkdirat(top, name, Mode::from_bits_truncate(0o755)).with_context(failed)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(top, name, flags, Mode::empty()).with_context(failed)
}

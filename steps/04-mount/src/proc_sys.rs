//! `/proc` and `/sys`: proc(5), sysfs(5), and the rules of user_namespaces(7)
//! for mounting them.
//!
//! Both are mounted while the host's are still in the mount namespace. In a
//! user namespace the kernel allows a new proc or sysfs only where an existing
//! one is fully visible, because a new one would reveal what was mounted over.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use kit::say;
use nix::errno::Errno;

use crate::Privileges;
use crate::detached::{Detached, MountAttrFlags};
use crate::target::{FileKind, Target};
use kit::errno::is;

/// The attributes `nosuid`, `nodev` and `noexec`.
pub(crate) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The namespace of this process, of a kind such as `pid`: the target of
/// `/proc/self/ns/pid`. `None` if there is no `/proc`.
pub(crate) fn namespace(kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Whether this process is in the namespace `of`, a result of [`namespace`].
/// `false` if either is unknown.
pub(crate) fn is_in(kind: &str, of: Option<&str>) -> bool {
    of.is_some() && namespace(kind).as_deref() == of
}

// ANCHOR: mount_proc
/// Mounts a new proc on `/proc` of the root. It shows the processes of the PID
/// namespace of the process that mounts it: this one.
///
/// `new_pids` says whether that namespace is new. If it is not, and the kernel
/// refuses a user namespace a proc of a PID namespace that it does not own, the
/// host's proc is bound instead: it shows the same processes.
///
/// # Errors
/// `EPERM` in a user namespace if the existing proc is partly covered.
pub(crate) fn mount_proc(root: BorrowedFd<'_>, new_pids: bool) -> Result<()> {
    // ANCHOR: exercise_mount_proc
    let target = directory(root, "/proc")?;
    let proc = match Detached::new("proc", &[], INERT) {
        Err(error) if is(&error, &[Errno::EPERM]) && !new_pids => {
            say!("proc: EPERM: a bind of the host's /proc instead");
            return Detached::copy_of(Path::new("/proc"))?
                .attach_with(INERT, target.as_fd())
                .map(drop);
        }
        Err(error) if is(&error, &[Errno::EPERM]) => {
            return Err(error.context(
                "a user namespace may mount proc only if a fully visible one exists, and here \
                 parts of /proc are masked, as in most containers: start outside of the \
                 container, or use --pid host",
            ));
        }
        made => made?,
    };
    proc.attach(target.as_fd()).map(drop)
    // ANCHOR_END: exercise_mount_proc
}
// ANCHOR_END: mount_proc

/// Mounts a sysfs on `/sys` of the root, read-only unless the container has all
/// privileges. It shows the network devices of the network namespace of the
/// process that mounts it.
///
/// Only the user namespace that owns the network namespace may mount one
/// (`EPERM`). If the network is the host's (`hosts_network`), the host's sysfs
/// shows no more of it than the container sees anyway: it is bound instead,
/// with everything below it read-only, and with a warning.
///
/// # Errors
/// `EPERM` in a user namespace if the network is neither its own nor the
/// host's, or if the existing sysfs is partly covered.
pub(crate) fn mount_sys(
    root: BorrowedFd<'_>,
    privileges: Privileges,
    hosts_network: bool,
) -> Result<()> {
    // ANCHOR: exercise_mount_sys
    let target = directory(root, "/sys")?;
    let mut attributes = INERT;
    if privileges == Privileges::Reduced {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    match Detached::new("sysfs", &[], attributes) {
        Err(error) if is(&error, &[Errno::EPERM]) && hosts_network => {
            kit::errln!(
                "warning: mount: /sys is the host's, read-only: a user namespace may mount sysfs \
                 only with a network namespace of its own"
            );
            let attributes = attributes | MountAttrFlags::MOUNT_ATTR_RDONLY;
            Detached::copy_of(Path::new("/sys"))?.attach_with(attributes, target.as_fd())
        }
        Err(error) if is(&error, &[Errno::EPERM]) => {
            return Err(error.context(
                "a user namespace may mount sysfs only with a network namespace of its own, and \
                 only if a fully visible sysfs exists, unlike in most containers: start outside \
                 of the container, or use --network host, with the host's /sys",
            ));
        }
        made => made?.attach(target.as_fd()),
    }
    .map(drop)
    // ANCHOR_END: exercise_mount_sys
}

/// Opens the directory `path` of the root, a mount point for one of the
/// kernel's file systems. Makes it if it is missing.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    Target::new(Path::new(path))?
        .open_or_make(root, FileKind::Directory)
        .with_context(|| format!("a place for {path}"))
}

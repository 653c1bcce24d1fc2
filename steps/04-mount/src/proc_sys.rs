//! `/proc` and `/sys`: proc(5), sysfs(5), and what user_namespaces(7) says
//! about mounting them.
//!
//! Both are made while the host's are still in the mount namespace. In a user
//! namespace the kernel gives a new proc or sysfs only where an old one is
//! wholly visible, because a new one would show again what was mounted over.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use kit::say;
use nix::errno::Errno;

use crate::Privileges;
use crate::detached::{Detached, MountAttrFlags};
use crate::target::{Kind, Target};
use kit::errno::is;

/// Nothing on it is executed, no set-user-ID bit counts, no device node works.
pub(crate) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Which namespace of a kind, such as `pid`, this process is in: the target of
/// `/proc/self/ns/pid`. `None` where there is no `/proc` to tell.
pub(crate) fn namespace(kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Whether this process is in a namespace that [`namespace`] has named. What
/// cannot be told is no.
pub(crate) fn is_in(kind: &str, of: Option<&str>) -> bool {
    of.is_some() && namespace(kind).as_deref() == of
}

// ANCHOR: mount_proc
/// Mounts a new proc on `/proc` of the root. It shows the processes of the PID
/// namespace of the process that mounts it: this one.
///
/// `new_pids` says whether that is a new namespace. If it is not, and the
/// kernel does not let a user namespace have a new proc for processes that it
/// does not own, the host's proc is as good.
///
/// # Errors
/// Those of fsopen(2) and its kin; `EPERM` in a user namespace where the proc
/// that is there is covered in part.
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
                "a user namespace may have a new /proc only where one is wholly visible, and \
                 parts of the present one are covered, as in most containers: start outside of \
                 it, or use --pid host",
            ));
        }
        made => made?,
    };
    proc.attach(target.as_fd()).map(drop)
    // ANCHOR_END: exercise_mount_proc
}
// ANCHOR_END: mount_proc

/// Mounts a sysfs, on `/sys` of the root, read-only unless the container has all
/// privileges. It shows the network
/// devices of the network namespace of the process that mounts it.
///
/// In a user namespace that does not own the network namespace the kernel gives
/// none (`EPERM`). Where that is the host's network (`hosts_network`), the
/// host's sysfs shows no more of it than the container sees anyway, and is bound,
/// with everything below it read-only; that is said. Else nothing is shown that
/// is not the container's.
///
/// # Errors
/// Those of fsopen(2), open_tree(2) and their kin.
pub(crate) fn mount_sys(
    root: BorrowedFd<'_>,
    privileges: Privileges,
    hosts_network: bool,
) -> Result<()> {
    let target = directory(root, "/sys")?;
    let mut attributes = INERT;
    if privileges == Privileges::Reduced {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    match Detached::new("sysfs", &[], attributes) {
        Err(error) if is(&error, &[Errno::EPERM]) && hosts_network => {
            eprintln!(
                "warning: mount: /sys is the host's, read-only: the kernel gives a user namespace \
                 a sysfs of its own only with a network of its own"
            );
            let attributes = attributes | MountAttrFlags::MOUNT_ATTR_RDONLY;
            Detached::copy_of(Path::new("/sys"))?.attach_with(attributes, target.as_fd())
        }
        Err(error) if is(&error, &[Errno::EPERM]) => {
            return Err(error.context(
                "a user namespace may have a sysfs only of a network that is its own, and only \
                 where the present one is not covered in part, as in most containers: start \
                 outside of it, or use --network host, with the host's /sys",
            ));
        }
        made => made?.attach(target.as_fd()),
    }
    .map(drop)
}

/// The directory of the root for one of the kernel's file systems, made where
/// it is missing.
///
/// # Errors
/// As [`Target::open_or_make`].
pub(crate) fn directory(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    Target::new(Path::new(path))?
        .open_or_make(root, Kind::Directory)
        .with_context(|| format!("a place for {path}"))
}

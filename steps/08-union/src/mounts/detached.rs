//! Detached mounts, as in step 04: open_tree(2), fsopen(2), fsmount(2),
//! mount_setattr(2). Only a descriptor holds such a mount. When the process
//! ends, for whatever reason, the kernel unmounts it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow};
use kit::sys;
use mount::file_system::MountAttrFlags;
use nix::errno::Errno;
use rustix::fs::{CWD, statfs};
use rustix::mount::{OpenTreeFlags, open_tree};

pub use mount::file_system::FileSystem;

use crate::driver::Access;

/// A detached bind mount of the directory `path`, without the mounts below it.
pub fn bind(path: &Path, access: Access) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags)
        .with_context(|| format!("open_tree({path:?}, OPEN_TREE_CLONE)"))?;
    if access == Access::ReadOnly {
        sys::mount_setattr(mount.as_fd(), false, libc::MOUNT_ATTR_RDONLY)
            .with_context(|| format!("mount_setattr({path:?}, MOUNT_ATTR_RDONLY)"))?;
    }
    Ok(mount)
}

/// Maps the owners of the files of a detached mount to the users of a user
/// namespace (`MOUNT_ATTR_IDMAP`).
///
/// # Errors
/// `EINVAL` and `ENOSYS` if the file system or the kernel has no ID-mapped
/// mounts.
pub fn map_ids(mount: impl AsFd, users: BorrowedFd<'_>) -> Result<()> {
    sys::map_ids(mount.as_fd(), users).map_err(|errno| match errno {
        Errno::EINVAL | Errno::ENOSYS => anyhow!(
            "mount_setattr(MOUNT_ATTR_IDMAP): {errno}: this file system or this kernel has no \
             ID-mapped mounts: keep the state on ext4, xfs or btrfs with Linux 5.12 or later, or \
             omit the map"
        ),
        other => Error::new(other).context("mount_setattr(MOUNT_ATTR_IDMAP)"),
    })
}

/// Creates a configured file system and a detached mount of it. `file_system`
/// is the access of the file system, `access` that of the mount: the mount may
/// be read-only where the file system is not.
pub fn mount(set_up: FileSystem, file_system: Access, access: Access) -> Result<OwnedFd> {
    if file_system == Access::ReadOnly {
        set_up.flag("ro")?;
    }
    set_up.mount(match access {
        Access::ReadOnly => MountAttrFlags::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => MountAttrFlags::empty(),
    })
}

/// The name of the type of the file system that a directory is on, or its magic
/// number (statfs(2)).
pub fn file_system(path: &Path) -> Result<String> {
    let magic = statfs(path)
        .with_context(|| format!("statfs({path:?})"))?
        .f_type;
    Ok(match magic {
        0xef53 => "ext4".into(),
        0x9123_683e => "btrfs".into(),
        0x5846_5342 => "xfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlay".into(),
        0x6573_5546 => "fuse".into(),
        0x6969 => "nfs".into(),
        other => format!("{other:#x}"),
    })
}

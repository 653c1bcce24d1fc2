//! Mounts without a place, as step 04 has them: open_tree(2), fsopen(2),
//! fsmount(2), mount_setattr(2).
//! A descriptor is all that holds such a mount; when the process ends, however
//! it ends, the kernel unmounts it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use mount::file_system::MountAttrFlags;
use process::sys;
use rustix::fs::{CWD, statfs};
use rustix::mount::{OpenTreeFlags, open_tree};

pub use mount::file_system::FileSystem;

use crate::driver::Access;

/// A mount of the directory `path` and what is below it: a bind mount.
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2).
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

/// Makes a file system that has been set up, and a mount of it that may be
/// read-only where the file system is not.
///
/// # Errors
/// Those of the file system, with its own words.
pub fn mount(set_up: FileSystem, file_system: Access, access: Access) -> Result<OwnedFd> {
    if file_system == Access::ReadOnly {
        set_up.flag("ro")?;
    }
    set_up.mount(match access {
        Access::ReadOnly => MountAttrFlags::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => MountAttrFlags::empty(),
    })
}

/// The name of the file system that a directory is on.
///
/// # Errors
/// Those of statfs(2).
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

/// Lets everybody read a directory and enter it: the root of a container.
///
/// # Errors
/// Those of chmod(2).
pub fn open_to_all(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod({path:?}, 755)"))
}

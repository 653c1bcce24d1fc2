//! Mounts without a place: open_tree(2), fsopen(2), fsmount(2), mount_setattr(2).
//! A descriptor is all that holds such a mount; when the process ends, however
//! it ends, the kernel unmounts it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use process::sys;
use rustix::fs::{CWD, statfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

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

/// A file system that is being set up: fsopen(2).
#[derive(Debug)]
pub struct FileSystem {
    fd: OwnedFd,
    name: &'static str,
}

impl FileSystem {
    /// A context for the file system `name`.
    ///
    /// # Errors
    /// `ENODEV` where the kernel has no such file system, `EPERM`.
    pub fn new(name: &'static str) -> Result<Self> {
        let fd = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
            .with_context(|| format!("fsopen({name:?})"))?;
        Ok(FileSystem { fd, name })
    }

    /// Sets an option that has a value of at most 255 bytes.
    ///
    /// # Errors
    /// `EINVAL` for an option that the file system does not know or like, with
    /// its own words.
    pub fn set(&self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Result<()> {
        let value = value.as_ref();
        fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.explain(errno))
            .with_context(|| format!("fsconfig({}, {key}={value:?})", self.name))
    }

    /// Sets an option that has no value.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn flag(&self, key: &str) -> Result<()> {
        fsconfig_set_flag(&self.fd, key)
            .map_err(|errno| self.explain(errno))
            .with_context(|| format!("fsconfig({}, {key})", self.name))
    }

    /// Makes the file system, and a mount of it.
    ///
    /// # Errors
    /// Those of the file system, with its own words.
    pub fn mount(self, access: Access) -> Result<OwnedFd> {
        self.mount_as(access, access)
    }

    /// The same, where the file system may be writable and the mount not.
    ///
    /// # Errors
    /// As [`mount`](Self::mount).
    pub fn mount_as(self, file_system: Access, access: Access) -> Result<OwnedFd> {
        if file_system == Access::ReadOnly {
            self.flag("ro")?;
        }
        fsconfig_create(&self.fd)
            .map_err(|errno| self.explain(errno))
            .with_context(|| format!("fsconfig({}, FSCONFIG_CMD_CREATE)", self.name))?;
        let attributes = match access {
            Access::ReadOnly => MountAttrFlags::MOUNT_ATTR_RDONLY,
            Access::ReadWrite => MountAttrFlags::empty(),
        };
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .with_context(|| format!("fsmount({})", self.name))
    }

    /// The context keeps messages about what it did not like, to be read from
    /// it: `e overlay: …`.
    fn explain(&self, errno: Errno) -> anyhow::Error {
        let mut message = [0; 256];
        let error = anyhow::Error::from(errno);
        match rustix::io::read(&self.fd, &mut message) {
            Ok(length) => {
                let said = String::from_utf8_lossy(&message[..length]);
                error.context(said.trim_start_matches("e ").trim().to_owned())
            }
            // ENODATA: it has nothing to say.
            Err(_) => error,
        }
    }
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

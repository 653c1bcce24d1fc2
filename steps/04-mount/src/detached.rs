//! Detached mounts, which are in no tree of mounts yet: made by open_tree(2) or
//! by `file_system`, changed by mount_setattr(2), attached by move_mount(2).
//!
//! mount(2) makes a mount visible before its attributes can be changed, and it
//! takes its target by name. A detached mount is complete before anybody can
//! see it, and it is attached to a descriptor: nobody can put a symbolic link
//! in the place of the target in between. Since Linux 5.2.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use kit::descriptor::name_of;
use kit::errno;
use kit::{say, sys};
use nix::errno::Errno;
pub use rustix::mount::MountAttrFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::file_system::FileSystem;
use crate::remount_legacy;

pub use crate::remount::make_read_only;

/// An option of a file system for fsconfig(2): a name, and a value if it has
/// one.
pub type FsOption<'a> = (&'a str, Option<&'a str>);

/// A detached mount. Dropping it unmounts it.
#[derive(Debug)]
pub struct Detached {
    fd: OwnedFd,
    what: String,
}

impl Detached {
    /// Makes a new instance of the file system `fs` with its options (proc(5),
    /// tmpfs(5)…), mounted with `attributes`.
    ///
    /// # Errors
    /// `ENODEV` if the kernel does not have the file system, `EPERM` if the
    /// caller's user namespace may not mount it, `EINVAL` with the kernel's
    /// message for an option that it rejects.
    pub fn new(fs: &str, options: &[FsOption<'_>], attributes: MountAttrFlags) -> Result<Self> {
        Self::from_source(fs, fs, options, attributes)
    }

    /// Makes a new instance like [`new`](Self::new), of a device or with another
    /// source for mountinfo to show.
    pub fn from_source(
        fs: &str,
        source: &str,
        options: &[FsOption<'_>],
        attributes: MountAttrFlags,
    ) -> Result<Self> {
        let context = FileSystem::new(fs)?;
        // The source that mountinfo shows.
        context.set("source", source)?;
        for (name, value) in options {
            match value {
                Some(value) => context.set(name, value)?,
                None => context.flag(name)?,
            }
        }
        let fd = context.mount(attributes)?;
        Ok(Detached {
            fd,
            what: fs.to_owned(),
        })
    }

    /// Copies the mount at `source` and the mounts below it: the first half of
    /// a recursive bind mount. The path is resolved now, in the root of this
    /// process.
    ///
    /// Always recursive, because in a user namespace the kernel refuses
    /// (`EINVAL`) to omit mounts that may hide something.
    ///
    /// # Errors
    /// `EINVAL` for an unbindable mount.
    pub fn copy_of(source: &Path) -> Result<Self> {
        let fd = open_tree(rustix::fs::CWD, source, CLONE)
            .map_err(errno::nix)
            .with_context(|| format!("open_tree({source:?}, OPEN_TREE_CLONE)"))?;
        Ok(Detached {
            fd,
            what: format!("{source:?}"),
        })
    }

    /// Copies a mount like [`copy_of`](Self::copy_of), of the file that
    /// `source` refers to. Errors and `-v` call it `what`.
    pub fn copy_of_fd(source: BorrowedFd<'_>, what: &Path) -> Result<Self> {
        let fd = open_tree(source, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(errno::nix)
            .with_context(|| format!("open_tree({what:?}, OPEN_TREE_CLONE)"))?;
        Ok(Detached {
            fd,
            what: format!("{what:?}"),
        })
    }

    /// Copies one mount without those below it, of the file that `source` refers
    /// to.
    ///
    /// # Errors
    /// `EINVAL` in a user namespace if a mount below it hides something.
    pub fn copy_of_fd_alone(source: BorrowedFd<'_>, what: &Path) -> Result<Self> {
        let alone = CLONE.difference(OpenTreeFlags::AT_RECURSIVE);
        let fd = open_tree(source, "", alone | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(errno::nix)
            .with_context(|| format!("open_tree({what:?}, OPEN_TREE_CLONE)"))?;
        Ok(Detached {
            fd,
            what: format!("{what:?}"),
        })
    }

    /// Attaches the mount to the file that `target` refers to.
    ///
    /// # Errors
    /// `ENOTDIR` for a directory on a file or a file on a directory.
    pub fn attach(self, target: BorrowedFd<'_>) -> Result<OwnedFd> {
        say!("mount {} on {}", self.what, name_of(target));
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.fd, "", target, "", flags)
            .map_err(errno::nix)
            .with_context(|| format!("move_mount({}, {})", self.what, name_of(target)))?;
        Ok(self.fd)
    }

    /// Attaches the mount, with `attributes` added to it and to the mounts
    /// below it.
    pub fn attach_with(
        self,
        attributes: MountAttrFlags,
        target: BorrowedFd<'_>,
    ) -> Result<OwnedFd> {
        match sys::mount_setattr(self.fd.as_fd(), true, attributes.bits().into()) {
            Ok(()) => self.attach(target),
            Err(Errno::ENOSYS) => remount_legacy::attach_with(|| self.attach(target), attributes),
            Err(errno) => Err(errno).with_context(|| {
                format!("mount_setattr({}, {attributes:?}, AT_RECURSIVE)", self.what)
            }),
        }
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_RECURSIVE);

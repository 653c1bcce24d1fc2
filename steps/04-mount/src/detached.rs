//! Mounts that are in no tree yet: open_tree(2), move_mount(2),
//! mount_setattr(2), and those that `file_system` makes.
//!
//! mount(2) makes a mount visible first and lets it be changed afterwards, and
//! it takes its target by name. A detached mount is finished before anybody can
//! see it, and it is attached to a descriptor: what the descriptor was opened
//! for cannot be exchanged for a symbolic link on the way. Since Linux 5.2.

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
use crate::remount;

pub use crate::remount::make_read_only;

/// An option of a file system, as fsconfig(2) takes it: a name, and a value
/// where it has one.
pub type FsOption<'a> = (&'a str, Option<&'a str>);

/// A mount without a place. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Detached {
    fd: OwnedFd,
    what: String,
}

impl Detached {
    /// A new instance of the file system `fs` with its options (proc(5),
    /// tmpfs(5)…), mounted with `attributes`.
    ///
    /// # Errors
    /// `ENODEV` where this kernel does not have the file system, `EPERM` where
    /// the caller's user namespace may not mount it, `EINVAL` with the kernel's
    /// own words for an option that it does not take.
    pub fn new(fs: &str, options: &[FsOption<'_>], attributes: MountAttrFlags) -> Result<Self> {
        let context = FileSystem::new(fs)?;
        // What mountinfo shows as the source.
        context.set("source", fs)?;
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

    /// A copy of the mount at `source`, a path as this process sees it now, and
    /// of the mounts below it: the first half of a recursive bind mount.
    ///
    /// Always recursive, because in a user namespace the kernel refuses
    /// (`EINVAL`) to leave out mounts that may hide something.
    ///
    /// # Errors
    /// Those of open_tree(2): `ENOENT`, `EACCES`, `EINVAL` for an unbindable
    /// mount.
    pub fn copy_of(source: &Path) -> Result<Self> {
        let fd = open_tree(rustix::fs::CWD, source, CLONE)
            .map_err(errno::nix)
            .with_context(|| format!("open_tree({source:?}, OPEN_TREE_CLONE)"))?;
        Ok(Detached {
            fd,
            what: format!("{source:?}"),
        })
    }

    /// As [`copy_of`](Self::copy_of), of what a descriptor was opened for.
    ///
    /// # Errors
    /// As there.
    pub fn copy_of_fd(source: BorrowedFd<'_>, what: &Path) -> Result<Self> {
        let fd = open_tree(source, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(errno::nix)
            .with_context(|| format!("open_tree({what:?}, OPEN_TREE_CLONE)"))?;
        Ok(Detached {
            fd,
            what: format!("{what:?}"),
        })
    }

    /// Attaches the mount, read and write, to what `target` was opened for.
    ///
    /// # Errors
    /// Those of move_mount(2): `ENOTDIR` for a directory on a file or a file on
    /// a directory.
    pub fn attach(self, target: BorrowedFd<'_>) -> Result<OwnedFd> {
        say!("mount {} on {}", self.what, name_of(target));
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.fd, "", target, "", flags)
            .map_err(errno::nix)
            .with_context(|| format!("move_mount({}, {})", self.what, name_of(target)))?;
        Ok(self.fd)
    }

    /// Attaches the mount, with `attributes` added to those that it and the
    /// mounts below it have.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach) and of mount_setattr(2) or mount(2).
    pub fn attach_with(
        self,
        attributes: MountAttrFlags,
        target: BorrowedFd<'_>,
    ) -> Result<OwnedFd> {
        match sys::mount_setattr(self.fd.as_fd(), true, attributes.bits().into()) {
            Ok(()) => self.attach(target),
            // Before Linux 5.12 only a mount that is attached can be changed.
            Err(Errno::ENOSYS) => {
                let mount = self.attach(target)?;
                remount::remount_tree(mount.as_fd(), attributes)?;
                Ok(mount)
            }
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

//! What a copied file looks like: its mode, owner, time and attributes.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat,
    fstat, setxattr, utimensat,
};
use rustix::io::Errno;
use union::tree::node::Xattrs;

/// What a file is to look like.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Permissions: the lower 12 bits of `st_mode`. A link has none.
    pub mode: u32,
    /// User and group; `None` for those that it has.
    pub owner: Option<(u32, u32)>,
    /// The time of the last change: seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: &'a Xattrs,
}

/// What a file cannot be given, for want of rights or because its file system has
/// no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost<'a> {
    /// User and group.
    Owner(u32, u32),
    /// An attribute.
    Attribute(&'a OsStr),
    /// The time of the last change.
    Time,
}

/// Is told what a file cannot be given, and why.
pub type OnLost<'a> = &'a mut dyn FnMut(Lost<'_>, Errno) -> Result<()>;

/// The path of an open file, for calls that take no descriptor opened with
/// `O_PATH`. It leads to the file itself, also if that is a link.
fn path(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

impl Look<'_> {
    /// Gives an open file this look. The owner first, because chown(2) clears
    /// set-user-ID bits and capabilities; times last.
    ///
    /// # Errors
    /// Of the calls, and of `lost`.
    pub fn write(&self, file: BorrowedFd<'_>, lost: OnLost<'_>) -> Result<()> {
        if let Some(owner) = self.owner {
            write_owner(file, owner, lost)?;
        }
        let path = path(file);
        let stat = fstat(file).context("fstat")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            chmod(&path, Mode::from_raw_mode(self.mode)).context("chmod")?;
        }
        for (name, value) in self.xattrs {
            match setxattr(&path, name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(errno @ (Errno::PERM | Errno::NOTSUP | Errno::INVAL | Errno::ACCESS)) => {
                    lost(Lost::Attribute(name), errno)?;
                }
                Err(errno) => return Err(errno).with_context(|| format!("setxattr({name:?})")),
            }
        }
        write_time(file, self.mtime, lost)
    }
}

/// Gives an open file an owner.
///
/// # Errors
/// Of the call, and of `lost`.
pub fn write_owner(file: BorrowedFd<'_>, (uid, gid): (u32, u32), lost: OnLost<'_>) -> Result<()> {
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match chownat(file, "", owner.0, owner.1, AtFlags::EMPTY_PATH) {
        Ok(()) => Ok(()),
        // Not root, or an ID that is not mapped: it stays as made.
        Err(errno @ (Errno::PERM | Errno::INVAL)) => lost(Lost::Owner(uid, gid), errno),
        Err(errno) => Err(errno).context("chown"),
    }
}

/// Gives an open file the time of its last change.
///
/// # Errors
/// Of the call, and of `lost`.
pub fn write_time(
    file: BorrowedFd<'_>,
    (seconds, nanoseconds): (i64, i64),
    lost: OnLost<'_>,
) -> Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    match utimensat(CWD, path(file), &times, AtFlags::empty()) {
        Ok(()) => Ok(()),
        Err(errno @ (Errno::PERM | Errno::NOTSUP)) => lost(Lost::Time, errno),
        Err(errno) => Err(errno).context("utimensat"),
    }
}

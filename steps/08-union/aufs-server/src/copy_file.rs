//! A copy of one file, with all its metadata.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use fuser::FileType;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, chownat, mknodat, openat, readlinkat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use crate::attr::{mode, rdev, reopen, times};
use crate::beneath::kind;
use crate::beneath::{Result, magic, stat_fd};
use crate::{copy_data, xattr};

/// Copies any file but a directory to `name` in `root`; of its data at most
/// `length` bytes, if given.
pub(crate) fn copy_file(
    original: &OwnedFd,
    root: &OwnedFd,
    name: &OsStr,
    length: Option<u64>,
) -> Result<()> {
    let stat = stat_fd(original)?;
    match kind(&stat) {
        FileType::RegularFile => {
            let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let copy = openat(root, name, new, Mode::RUSR | Mode::WUSR)?;
            let wanted = length.unwrap_or(u64::MAX).min(stat.stx_size);
            if wanted > 0 {
                let data = reopen_quietly(original)?;
                copy_data::copy(&data, &copy, wanted)?;
            }
        }
        FileType::Symlink => {
            let target = readlinkat(original, "", Vec::new())?;
            symlinkat(target, root, name)?;
        }
        _ => {
            let kind = rustix::fs::FileType::from_raw_mode(stat.stx_mode.into());
            mknodat(root, name, kind, Mode::RUSR | Mode::WUSR, rdev(&stat))?;
        }
    }
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    copy_metadata(original, &openat(root, name, place, Mode::empty())?)
}

/// Opens a file for reading without changing its access time, if the kernel
/// allows that: to the owner and with `CAP_FOWNER`.
fn reopen_quietly(place: &OwnedFd) -> Result<OwnedFd> {
    match reopen(place, OFlags::RDONLY | OFlags::NOATIME) {
        Err(Errno::PERM) => reopen(place, OFlags::RDONLY),
        opened => opened,
    }
}

/// Copies owner, extended attributes, mode and times, in this order: a change
/// of owner clears capabilities and set-user-ID bits, and every change sets new
/// times.
pub(crate) fn copy_metadata(original: &OwnedFd, copy: &OwnedFd) -> Result<()> {
    let stat = stat_fd(original)?;
    let (uid, gid) = (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid));
    chownat(copy, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    xattr::copy(original, copy)?;
    if kind(&stat) != FileType::Symlink {
        chmodat(CWD, magic(copy), mode(&stat), AtFlags::empty())?;
    }
    utimensat(CWD, magic(copy), &times(&stat), AtFlags::empty())
}

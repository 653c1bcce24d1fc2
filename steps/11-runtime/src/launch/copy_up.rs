//! `tmpcopyup`: a tmpfs that begins with the files that it covers.
//!
//! The files are the image's. They are read by descriptors, and no link is
//! followed.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

/// The deepest tree that is copied.
const DEEPEST: u32 = 100;

/// Copies what is in the directory `from` into the directory `to`.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    directory(from, to, 0)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    if depth > DEEPEST {
        bail!("directories nested more than {DEEPEST} times");
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(from, ".", flags, Mode::empty()).context("open a directory")?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.context("read a directory")?;
        let name = entry.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    for name in names {
        one(from, to, &name, depth).with_context(|| format!("copy {name:?}"))?;
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).context("fstatat")?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let safe = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU).context("mkdirat")?;
            let flags = safe | OFlag::O_PATH | OFlag::O_DIRECTORY;
            let below = openat(from, name, flags, Mode::empty()).context("openat")?;
            let new = openat(to, name, flags, Mode::empty()).context("openat")?;
            directory(below.as_fd(), new.as_fd(), depth + 1)?;
        }
        SFlag::S_IFREG => {
            let flags = safe | OFlag::O_RDONLY;
            let mut old = File::from(openat(from, name, flags, Mode::empty()).context("openat")?);
            let flags = safe | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let new = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
            io::copy(&mut old, &mut File::from(new.context("openat")?)).context("copy")?;
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).context("readlinkat")?;
            symlinkat(&*target, to, name).context("symlinkat")?;
        }
        _ => match mknodat(to, name, kind, mode, stat.st_rdev) {
            Ok(()) => {}
            // A node cannot be made in a user namespace; nobody could use it.
            Err(Errno::EPERM) => return Ok(()),
            Err(errno) => return Err(errno).context("mknodat"),
        },
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // The owner is not mapped in this user namespace.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
        Err(errno) => return Err(errno).context("fchownat"),
    }
    if kind != SFlag::S_IFLNK {
        // After the owner, whose change clears set-user-ID bits.
        fchmodat(to, name, mode, FchmodatFlags::FollowSymlink).context("fchmodat")?;
    }
    Ok(())
}

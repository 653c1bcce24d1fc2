//! Taking a tree away.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::{file_type, names};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes whatever is at `path`, if anything, and all that is in it. Links are
/// removed, not followed. A directory that its owner may not read is opened up
/// first, such as overlay's `work/work`.
///
/// # Errors
/// Those of unlink(2), such as `EBUSY` for a mount point.
pub fn remove(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, parent, flags, Mode::empty()) {
        Ok(directory) => remove_at(&directory, name).with_context(|| format!("remove {path:?}")),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("open({parent:?})")),
    }
}

/// The same for `name` in `directory`.
///
/// # Errors
/// As there.
pub fn remove_at(directory: impl AsFd, name: &OsStr) -> Result<()> {
    let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).with_context(|| format!("stat({name:?})")),
    };
    let flags = if file_type(&stat) == FileType::Directory {
        empty(&open(&directory, name)?)?;
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    match unlinkat(&directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("unlink({name:?})")),
    }
}

/// Removes everything in a directory.
///
/// # Errors
/// As [`remove`].
pub fn empty(directory: &OwnedFd) -> Result<()> {
    let listing = openat(directory, ".", DIRECTORY, Mode::empty()).context("openat(\".\")")?;
    for name in names(listing).context("readdir")? {
        remove_at(directory, &name)?;
    }
    Ok(())
}

fn open(directory: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    match openat(&directory, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(&directory, name, Mode::RWXU, AtFlags::empty())
                .with_context(|| format!("chmod({name:?}, 700)"))?;
            openat(&directory, name, DIRECTORY, Mode::empty())
        }
        opened => opened,
    }
    .with_context(|| format!("open({name:?}, O_DIRECTORY)"))
}

//! Whiteouts: the names by which a branch marks what is deleted.
//!
//! | name | meaning |
//! |---|---|
//! | `.wh.NAME` | `NAME` of the branches below does not exist |
//! | `.wh..wh..opq` | nothing of this directory comes from the branches below |
//! | `.wh..wh.plnk/` | hard links across branches |
//! | `.wh..wh.tmp.N` | unfinished work of this server, in a branch's root |

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::beneath::{Result, optional, stat_at};

/// The prefix of every name of AUFS's own.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// The prefix of AUFS's own names that are no whiteouts.
pub(crate) const META: &[u8] = b".wh..wh.";
/// The mark of an opaque directory.
pub(crate) const OPAQUE: &str = ".wh..wh..opq";
/// The prefix of the names under which files are made before they are shown.
pub(crate) const TEMPORARY: &str = ".wh..wh.tmp.";

/// The longest name, in bytes: its whiteout must fit into `NAME_MAX`.
pub(crate) const NAME_MAX: usize = 255 - PREFIX.len();

/// Refuses names that a user of the union may not use.
///
/// # Errors
/// `EPERM` for names that begin with `.wh.`, as in AUFS; `ENAMETOOLONG` if
/// they have more than 251 bytes.
pub(crate) fn check(name: &OsStr) -> Result<()> {
    match name.as_bytes().starts_with(PREFIX) {
        true if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
        true => Err(Errno::PERM),
        false => Ok(()),
    }
}

/// Refuses what [`check`] refuses, and names that could never be whited out.
///
/// # Errors
/// `ENAMETOOLONG` for names of more than 251 bytes.
pub(crate) fn check_new(name: &OsStr) -> Result<()> {
    check(name)?;
    match name.len() > NAME_MAX {
        true => Err(Errno::NAMETOOLONG),
        false => Ok(()),
    }
}

/// The errno for a name that does not exist: `ENAMETOOLONG` if it is too long
/// to be made, else `ENOENT`. A branch that was not written through the union
/// may have longer names, which are shown.
pub(crate) fn absent(name: &OsStr) -> Errno {
    match name.len() > NAME_MAX {
        true => Errno::NAMETOOLONG,
        false => Errno::NOENT,
    }
}

/// The name of a whiteout: `.wh.NAME`.
pub(crate) fn of(name: &OsStr) -> OsString {
    OsString::from_vec([PREFIX, name.as_bytes()].concat())
}

/// Whether the directory has a whiteout of `name`.
pub(crate) fn exists(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    if name.len() > NAME_MAX {
        return Ok(false);
    }
    Ok(optional(stat_at(dir, &of(name)))?.is_some())
}

/// Makes `.wh.NAME`, if it does not exist yet.
pub(crate) fn make(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    mark(dir, &of(name))
}

/// Makes the directory opaque.
pub(crate) fn make_opaque(dir: &OwnedFd) -> Result<()> {
    mark(dir, OsStr::new(OPAQUE))
}

fn mark(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(dir, name, new, Mode::from_raw_mode(0o444)) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes `.wh.NAME` if it is there.
pub(crate) fn remove(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    if name.len() > NAME_MAX {
        return Ok(());
    }
    optional(unlinkat(dir, of(name), AtFlags::empty())).map(drop)
}

/// Whether the directory `name` in `dir` is opaque.
pub(crate) fn is_opaque(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    let mark = [name.as_bytes(), b"/", OPAQUE.as_bytes()].concat();
    Ok(optional(stat_at(dir, OsStr::from_bytes(&mark)))?.is_some())
}

/// Removes the unfinished work that a killed server left in the root of a
/// branch.
pub(crate) fn clear_temporary(root: &OwnedFd) -> Result<()> {
    for (name, _) in names(root)? {
        if name.as_bytes().starts_with(TEMPORARY.as_bytes()) {
            remove_tree(root, &name)?;
        }
    }
    Ok(())
}

/// Removes `name` in `dir` with everything in it: unfinished work, and
/// directories that hold only whiteouts.
pub(crate) fn remove_tree(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        removed => return removed,
    }
    let inside = open_to_read(dir, name)?;
    for (name, _) in names(&inside)? {
        remove_tree(&inside, &name)?;
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

fn open_to_read(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// The names in a directory that is open for reading, without `.` and `..`.
pub(crate) fn names(dir: &OwnedFd) -> Result<Vec<(OsString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsString::from_vec(name.to_vec()), entry.file_type()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_may_not_name_whiteouts() {
        assert_eq!(check(OsStr::new(".wh.a")), Err(Errno::PERM));
        assert_eq!(check(OsStr::new(".wh")), Ok(()));
        assert_eq!(check(OsStr::new("a.wh.")), Ok(()));
    }

    #[test]
    fn every_new_name_can_be_whited_out() {
        let longest = OsString::from("x".repeat(251));
        assert_eq!(check_new(&longest), Ok(()));
        assert_eq!(of(&longest).len(), 255);
        let longer = OsString::from("x".repeat(252));
        assert_eq!(check_new(&longer), Err(Errno::NAMETOOLONG));
        assert_eq!(absent(&longest), Errno::NOENT);
        assert_eq!(absent(&longer), Errno::NAMETOOLONG);
    }
}

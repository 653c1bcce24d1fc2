//! Taking a tree away.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, chmodat, openat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::{file_type, names};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How deep directories are taken away where they are. Each level holds a
/// descriptor and some stack, and somebody who made the tree to annoy has made
/// it deeper than there are descriptors.
const DEEP: usize = 100;

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
    if !is_directory(&directory, name)? {
        return unlink(&directory, name, AtFlags::empty());
    }
    empty(&open(&directory, name)?)?;
    unlink(&directory, name, AtFlags::REMOVEDIR)
}

/// Removes everything in a directory.
///
/// # Errors
/// As [`remove`].
pub fn empty(directory: &OwnedFd) -> Result<()> {
    // What lies deep comes up here, under a name that is free, and goes in the
    // next round.
    while empty_once(directory, directory, DEEP)? {}
    Ok(())
}

/// Removes what is in `directory`, but moves what is deeper than `deep` up to
/// `top`; returns whether there was any of that.
fn empty_once(top: &OwnedFd, directory: &OwnedFd, deep: usize) -> Result<bool> {
    let mut moved = false;
    let listing = openat(directory, ".", DIRECTORY, Mode::empty()).context("openat(\".\")")?;
    for name in names(listing).context("readdir")? {
        if !is_directory(directory, &name)? {
            unlink(directory, &name, AtFlags::empty())?;
        } else if deep == 0 {
            move_up(top, directory, &name)?;
            moved = true;
        } else {
            moved |= empty_once(top, &open(directory, &name)?, deep - 1)?;
            unlink(directory, &name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(moved)
}

fn move_up(top: &OwnedFd, directory: &OwnedFd, name: &OsStr) -> Result<()> {
    for n in 0.. {
        let free = OsString::from(format!(".deep-{n}"));
        match renameat_with(directory, name, top, &free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            moved => return moved.with_context(|| format!("rename({name:?}, {free:?})")),
        }
    }
    Ok(())
}

fn is_directory(directory: impl AsFd, name: &OsStr) -> Result<bool> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(file_type(&stat) == FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("stat({name:?})")),
    }
}

fn unlink(directory: impl AsFd, name: &OsStr, flags: AtFlags) -> Result<()> {
    match unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("unlink({name:?})")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("tree");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(".deep-0"), "in the way").unwrap();
        let mut at = openat(CWD, &path, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..5000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}

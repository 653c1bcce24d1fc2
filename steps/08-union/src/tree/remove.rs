//! Removal of a tree in spite of obstacles: modes that keep its owner out,
//! immutable files, unlimited depth, files of other users. Mounts in it are
//! never entered: they are other trees.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use kit::say;
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, chmod, fchmod, fstat,
    ioctl_getflags, ioctl_setflags, openat, openat2, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{file_type, names};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Resolution that enters no mount and follows no symbolic link, which somebody
/// may have put in a directory's place meanwhile.
const SAME_MOUNT: ResolveFlags = ResolveFlags::NO_XDEV.union(ResolveFlags::NO_SYMLINKS);

/// The depth to which directories are removed in place. Each level holds a
/// descriptor and some stack, and a hostile tree is deeper than there are
/// descriptors.
const DEEP: usize = 100;

/// Removes what is at `path`, if anything, with all its content. Symbolic links
/// are removed, not followed. Modes and flags that the owner may change are no
/// obstacle. Files of users in the caller's ranges in /etc/subuid are removed
/// from within a user namespace that maps them.
///
/// A file that cannot be removed does not stop the removal of the rest.
///
/// # Errors
/// The first failure. A mount point is one: it is not entered.
pub fn remove(path: &Path) -> Result<()> {
    let removed = remove_here(path);
    match removed {
        Err(error) if !geteuid().is_root() && is_refusal(&error) => {
            say!("remove {path:?} as root of a user namespace: {error:#}");
            user::inside::as_mapped_root(|| remove_here(path))
                .map_err(|more| error.context(format!("nor in a user namespace ({more:#})")))
        }
        removed => removed,
    }
}

fn is_refusal(error: &Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<Errno>())
        .any(|errno| matches!(*errno, Errno::ACCESS | Errno::PERM))
}

fn remove_here(path: &Path) -> Result<()> {
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

/// Removes `name` in `directory` with all its content, by the caller's own
/// rights.
pub fn remove_at(directory: impl AsFd, name: &OsStr) -> Result<()> {
    // The directory itself stays as it is: the tree begins below it.
    let top = Within::Keep(directory.as_fd());
    if !top.is_directory(name)? {
        return top.unlink(name, AtFlags::empty());
    }
    if let Some(directory) = top.open(name)? {
        empty(&directory)?;
    }
    top.unlink(name, AtFlags::REMOVEDIR)
}

/// Removes everything in a directory.
pub fn empty(directory: &OwnedFd) -> Result<()> {
    // Directories that lie deep are moved up to here, under free names, and
    // removed in the next round.
    loop {
        let mut round = Round {
            top: directory,
            moved: false,
            failed: None,
        };
        round.empty(directory, Path::new(""), DEEP);
        match round.failed {
            Some(error) => return Err(error),
            None if !round.moved => return Ok(()),
            None => {}
        }
    }
}

/// One pass over a tree.
struct Round<'a> {
    /// The directory to which those that are too deep are moved.
    top: &'a OwnedFd,
    /// Whether any were moved.
    moved: bool,
    /// The first failure.
    failed: Option<Error>,
}

impl Round<'_> {
    /// Removes the content of `directory`, which is `path` from the top, but
    /// moves directories that are deeper than `deep` up.
    fn empty(&mut self, directory: &OwnedFd, path: &Path, deep: usize) {
        let listing = openat(directory, ".", DIRECTORY, Mode::empty())
            .map_err(Error::from)
            .and_then(names);
        match listing {
            Ok(names) => {
                for name in names {
                    let at = path.join(&name);
                    if let Err(error) = self.take(directory, &name, &at, deep) {
                        self.failed.get_or_insert(error);
                    }
                }
            }
            Err(error) => {
                let error = error.context(format!("read the directory {path:?}"));
                self.failed.get_or_insert(error);
            }
        }
    }

    fn take(&mut self, directory: &OwnedFd, name: &OsStr, at: &Path, deep: usize) -> Result<()> {
        let within = Within::Change(directory.as_fd());
        let removed = if !within.is_directory(name)? {
            within.unlink(name, AtFlags::empty())
        } else if unlinkat(directory, name, AtFlags::REMOVEDIR).is_ok() {
            // Many are empty: one call instead of eight.
            Ok(())
        } else if deep == 0 {
            self.moved = true;
            within.move_up(self.top, name)
        } else {
            let failed = self.failed.is_some();
            let below = within.open(name);
            if let Some(below) = below.with_context(|| format!("in the tree at {at:?}"))? {
                self.empty(&below, at, deep - 1);
            }
            // It holds what stays, whose error is noted already.
            match within.unlink(name, AtFlags::REMOVEDIR) {
                Err(_) if self.failed.is_some() && !failed => Ok(()),
                removed => removed,
            }
        };
        removed.with_context(|| format!("in the tree at {at:?}"))
    }
}

/// A directory from which something is removed.
#[derive(Clone, Copy)]
enum Within<'a> {
    /// It stays, unchanged.
    Keep(BorrowedFd<'a>),
    /// It is removed as well, and may be changed before.
    Change(BorrowedFd<'a>),
}

impl Within<'_> {
    fn directory(&self) -> BorrowedFd<'_> {
        let (Within::Keep(directory) | Within::Change(directory)) = self;
        *directory
    }

    fn is_directory(&self, name: &OsStr) -> Result<bool> {
        let look = || statat(self.directory(), name, AtFlags::SYMLINK_NOFOLLOW);
        match self.with_rights(name, look) {
            Ok(stat) => Ok(file_type(&stat) == FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("stat({name:?})")),
        }
    }

    fn unlink(&self, name: &OsStr, flags: AtFlags) -> Result<()> {
        match self.with_rights(name, || unlinkat(self.directory(), name, flags)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("unlink({name:?})")),
        }
    }

    fn move_up(&self, top: &OwnedFd, name: &OsStr) -> Result<()> {
        for n in 0.. {
            let free = OsString::from(format!(".deep-{n}"));
            let from = self.directory();
            let rename = || renameat_with(from, name, top, &free, RenameFlags::NOREPLACE);
            match self.with_rights(name, rename) {
                Err(Errno::EXIST) => {}
                moved => return moved.with_context(|| format!("rename({name:?}, {free:?})")),
            }
        }
        Ok(())
    }

    /// Opens a directory; `None` if somebody has removed it meanwhile.
    fn open(&self, name: &OsStr) -> Result<Option<OwnedFd>> {
        let open = |flags| openat2(self.directory(), name, flags, Mode::empty(), SAME_MOUNT);
        let mut opened = self.with_rights(name, || open(DIRECTORY));
        if matches!(opened, Err(Errno::ACCESS)) {
            let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            opened = open(place).and_then(open_up).and_then(|()| open(DIRECTORY));
        }
        match opened.map(Some) {
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => bail!("{name:?} is a mount point, which is not entered: umount it"),
            opened => opened.with_context(|| format!("open({name:?}, O_DIRECTORY)")),
        }
    }

    /// Calls `act`, which does something to `name`. If that is refused
    /// (`EACCES`, `EPERM`), clears what the caller may change and calls it once
    /// more: the directory's mode, and the flags immutable and append-only of
    /// both (ioctl_iflags(2)).
    fn with_rights<T>(
        &self,
        name: &OsStr,
        act: impl Fn() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let refused = match act() {
            Err(refused @ (Errno::ACCESS | Errno::PERM)) => refused,
            done => return done,
        };
        // If none of these succeeds, the refusal is returned.
        let directory = self.directory();
        let mut changed = thaw(directory, name).is_ok();
        if let Within::Change(_) = self {
            changed |= thaw(directory, OsStr::new(".")).is_ok();
            changed |= open_up(directory).is_ok();
        }
        match changed {
            true => act(),
            false => Err(refused),
        }
    }
}

/// Gives the owner of a directory all rights to it. The descriptor may be one
/// of `O_PATH`.
fn open_up(directory: impl AsFd) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(fstat(&directory)?.st_mode) | Mode::RWXU;
    match fchmod(&directory, mode) {
        Err(Errno::BADF) => chmod(reached(&directory), mode),
        done => done,
    }
}

fn reached(file: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

fn thaw(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    const FROZEN: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
    let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    // Opening a file of another type may have side effects.
    if !matches!(
        file_type(&stat),
        FileType::RegularFile | FileType::Directory
    ) {
        return Err(Errno::NOTSUP);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(&directory, name, flags, Mode::empty(), SAME_MOUNT)?;
    let flags = ioctl_getflags(&file)?;
    match flags.intersects(FROZEN) {
        true => ioctl_setflags(&file, flags - FROZEN),
        false => Err(Errno::NOTSUP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

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

    /// Whoever runs this as root sees nothing of modes.
    #[test]
    fn directories_without_permissions_go() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("tree");
        for (n, mode) in [0o555, 0o000, 0o100, 0o400].into_iter().enumerate() {
            let directory = path.join(n.to_string());
            fs::create_dir_all(directory.join("d/e")).unwrap();
            fs::write(directory.join("file"), "").unwrap();
            fs::set_permissions(directory.join("d"), Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(0o500)).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}

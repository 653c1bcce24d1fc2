//! A tree of files below a descriptor of its root. Lookups never leave it,
//! whatever symbolic links are in the way (openat2(2)).
//!
//! | module | what |
//! |---|---|
//! | this | lookups in a tree |
//! | [`node`] | a file's metadata, read and written |
//! | [`copy`] | a copy of a tree, with reflinks where the file system has them |
//! | [`root`] | the root directory of a layer |
//! | [`compare`] | what differs between two trees |
//! | [`remove`] | removal of a tree |
//! | [`size`] | the space it takes |

pub mod compare;
pub mod copy;
pub mod node;
pub mod remove;
pub(crate) mod root;
pub mod size;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kit::errno::is;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Resolution that stays below the root and follows no symbolic link, which
/// somebody may have put there in the meantime.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// How deep directories may be nested. Twice as many as fit into a path of the
/// kernel's (`PATH_MAX`), so only a program makes more.
const DEEPEST: usize = 4096;

/// A tree of files below its root.
///
/// Paths are relative to the root; the empty path is the root itself. Symbolic
/// links among the directories of a path are not followed (`ELOOP`).
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

/// A place in a tree: a directory and a name in it.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub directory: OwnedFd,
    /// The name; `.` for the root.
    pub name: OsString,
}

impl Tree {
    /// Opens the tree below the directory at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .with_context(|| format!("open({path:?}, O_DIRECTORY)"))?;
        Ok(Tree { root })
    }

    /// Opens the tree below the directory `root`, for which an `O_PATH`
    /// descriptor suffices.
    pub fn at(root: impl AsFd) -> Result<Self> {
        let root = openat(root, ".", DIRECTORY, Mode::empty()).context("openat(\".\")")?;
        Ok(Tree { root })
    }

    /// A descriptor of the root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The path of `place` in /proc/self/fd, for system calls that take no
    /// directory descriptor. Its last component is not checked: only for calls
    /// that do not follow it.
    pub(crate) fn through_proc(place: &Place) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(place.directory.as_raw_fd().to_string())
            .join(&place.name)
    }

    /// The directory that holds `path`, and its name there.
    pub fn place(&self, path: &Path) -> Result<Place> {
        let Some(name) = path.file_name() else {
            return Ok(Place {
                directory: self.root.try_clone().context("dup(the root of a tree)")?,
                name: ".".into(),
            });
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(Place {
            directory: self.directory(parent)?,
            name: name.to_owned(),
        })
    }

    /// Opens the directory `path`.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let mut parts = parts(path).into_iter();
        let Some(first) = parts.next() else {
            return self.root.try_clone().context("dup(the root of a tree)");
        };
        let open = |at: BorrowedFd<'_>, part: &Path| {
            openat2(at, part, DIRECTORY, Mode::empty(), INSIDE)
                .with_context(|| format!("openat2({part:?}, RESOLVE_BENEATH)"))
        };
        let mut directory = open(self.root(), &first)?;
        for part in parts {
            directory = open(directory.as_fd(), &part)?;
        }
        Ok(directory)
    }

    /// Opens the file `path` for reading.
    pub fn file(&self, path: &Path) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let place = self.place(path)?;
        openat2(&place.directory, &place.name, flags, Mode::empty(), INSIDE)
            .map(File::from)
            .with_context(|| format!("openat2({path:?}, RESOLVE_BENEATH)"))
    }

    /// The status of the file at `path`; `None` if there is none (`ENOENT`,
    /// `ENOTDIR`) or if a directory of the path is a symbolic link (`ELOOP`).
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let place = match self.place(path) {
            Ok(place) => place,
            Err(error) if is(&error, &[Errno::NOENT, Errno::NOTDIR, Errno::LOOP]) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("stat({path:?})")),
        }
    }

    /// The target of the symbolic link `path`.
    pub fn link(&self, path: &Path) -> Result<OsString> {
        let place = self.place(path)?;
        let target = readlinkat(&place.directory, &place.name, Vec::new())
            .with_context(|| format!("readlink({path:?})"))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The names in the directory `path`, sorted.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>> {
        // Opened anew: duplicates of a descriptor share the position in the
        // directory.
        let directory = openat(self.directory(path)?, ".", DIRECTORY, Mode::empty())
            .with_context(|| format!("open({path:?})"))?;
        names(directory).with_context(|| format!("readdir({path:?})"))
    }

    /// Calls `visit` for every file below `path`, but not for `path` itself: in
    /// the order of names, directories before their content. If `visit` returns
    /// false for a directory, its content is skipped.
    ///
    /// # Errors
    /// Also if directories are nested too deep: each is looked up from the root.
    pub fn walk(
        &self,
        path: &Path,
        visit: &mut dyn FnMut(&Path, &Stat) -> Result<bool>,
    ) -> Result<()> {
        // No recursion: a container may have made directories deeper than the
        // stack is.
        let mut ahead = vec![self.below(path)?];
        while let Some(paths) = ahead.last_mut() {
            let Some(path) = paths.pop() else {
                ahead.pop();
                continue;
            };
            // Somebody may have removed it since.
            let Some(stat) = self.stat(&path)? else {
                continue;
            };
            if visit(&path, &stat)? && file_type(&stat) == FileType::Directory {
                ensure!(
                    ahead.len() < DEEPEST,
                    "directories are nested more than {DEEPEST} deep: rm -r them"
                );
                ahead.push(self.below(&path)?);
            }
        }
        Ok(())
    }

    /// The paths in the directory `path`, the last one first.
    fn below(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let names = self.names(path)?.into_iter().rev();
        Ok(names.map(|name| path.join(name)).collect())
    }
}

/// A path in parts that the kernel takes: `PATH_MAX` bytes each, with the NUL
/// (limits.h). The empty path has none.
fn parts(path: &Path) -> Vec<PathBuf> {
    const LONGEST: usize = 4095;
    if path.as_os_str().len() <= LONGEST {
        return match path.as_os_str().is_empty() {
            true => Vec::new(),
            false => vec![path.to_owned()],
        };
    }
    let mut parts: Vec<PathBuf> = Vec::new();
    for name in path {
        match parts.last_mut() {
            Some(part) if part.as_os_str().len() + 1 + name.len() <= LONGEST => part.push(name),
            _ => parts.push(name.into()),
        }
    }
    parts
}

/// The names in an open directory, sorted.
pub fn names(directory: OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::new(directory)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != OsStr::new(".") && name != OsStr::new("..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The type of a file.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::remove::remove_at;
    use rustix::fs::mkdirat;

    #[test]
    fn a_tree_may_be_deeper_than_a_path_is_long() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let mut at = tree.directory(Path::new("")).unwrap();
        for _ in 0..2500 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        let mut deepest = PathBuf::new();
        let walked = tree.walk(Path::new(""), &mut |path, _| {
            deepest = path.to_owned();
            Ok(true)
        });
        walked.unwrap();
        assert_eq!(deepest.components().count(), 2500);
        assert!(tree.stat(&deepest).unwrap().is_some());
        remove_at(&tree.root, OsStr::new("d")).unwrap();
    }
}

//! What a name means: in a container, whatever links it has, no name leads out of
//! its root (openat2(2), `RESOLVE_IN_ROOT`); on the host, as usual.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

/// The most links in one name, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path as somebody has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The path from the root, without `.` and `..`.
    pub path: PathBuf,
    /// Whether it can only be a directory: it ends with `/` or `/.`.
    pub is_directory: bool,
    /// Whether the content of the directory is meant: it ends with `/.`.
    pub is_content: bool,
}

impl Written {
    /// Reads a path of a container, where all paths begin at the root, or one of
    /// the host, where they begin at `base`.
    pub fn new(text: &OsStr, base: &Path) -> Self {
        let bytes = text.as_bytes();
        let is_content = bytes == b"." || bytes.ends_with(b"/.");
        Written {
            path: clean(&base.join(text)),
            is_directory: is_content || bytes.ends_with(b"/") || bytes == b"..",
            is_content,
        }
    }

    /// The name of what is copied; `.` for the content of a directory.
    pub fn name(&self) -> &OsStr {
        match self.path.file_name() {
            Some(name) if !self.is_content => name,
            _ => OsStr::new("."),
        }
    }
}

/// A path without `.` and `..`, as Go's `filepath.Clean` has it: by its text, as
/// if no part of it were a link.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Where names are looked up.
#[derive(Debug)]
pub enum Names {
    /// On the host.
    Host,
    /// Below the root of a container.
    Inside(OwnedFd),
}

/// A file, or the place for one.
#[derive(Debug)]
pub struct Found {
    /// Its directory.
    pub directory: OwnedFd,
    /// The path of the directory.
    pub path: PathBuf,
    /// Its name there; `.` for the root.
    pub name: OsString,
    /// Its status; `None` if there is no such file.
    pub stat: Option<Stat>,
}

impl Found {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.is(FileType::Directory)
    }

    fn is(&self, kind: FileType) -> bool {
        self.stat
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
    }
}

impl Names {
    /// Opens a directory. Links are followed.
    ///
    /// # Errors
    /// Of openat2(2), with their errno.
    // ANCHOR: directory
    pub fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let opened = match self {
            Names::Host => openat(CWD, path, DIRECTORY, Mode::empty()),
            Names::Inside(root) => loop {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                match openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
                    // Somebody renames directories in the way.
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    opened => break opened,
                }
            },
        };
        opened.with_context(|| format!("open {path:?}"))
    }
    // ANCHOR_END: directory

    /// Finds a file. A link at the end of the path is followed if `follow`, also
    /// to where nothing is.
    ///
    /// # Errors
    /// If its directory does not exist: with the errno.
    pub fn find(&self, path: &Path, follow: bool) -> Result<Found> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let Some(name) = path.file_name().map(OsStr::to_owned) else {
                let directory = self.directory(&path)?;
                let stat = fstat(&directory).with_context(|| format!("stat {path:?}"))?;
                return Ok(Found {
                    directory,
                    path,
                    name: ".".into(),
                    stat: Some(stat),
                });
            };
            let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
            let directory = self.directory(&parent)?;
            let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno).with_context(|| format!("stat {path:?}")),
            };
            let found = Found {
                directory,
                path: parent,
                name,
                stat,
            };
            if !follow || !found.is(FileType::Symlink) {
                return Ok(found);
            }
            let target = readlinkat(&found.directory, &found.name, Vec::new())
                .with_context(|| format!("readlink {path:?}"))?;
            path = found.path.join(OsString::from_vec(target.into_bytes()));
        }
        bail!("{path:?} is behind more than {LINKS} links")
    }

    /// Opens the directory `path` below `base`, into which somebody's archive is
    /// written. In a container, links lead to where they lead for its processes.
    /// On the host none is followed: the archive may have brought it.
    pub fn below(&self, base: &OwnedFd, base_path: &Path, path: &Path) -> Result<OwnedFd> {
        match self {
            Names::Inside(_) => self.directory(&base_path.join(path)),
            Names::Host if path.as_os_str().is_empty() => {
                base.as_fd().try_clone_to_owned().context("dup")
            }
            Names::Host => {
                let resolve =
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                openat2(base, path, DIRECTORY, Mode::empty(), resolve)
                    .with_context(|| format!("openat2({path:?}, RESOLVE_NO_SYMLINKS)"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn slashes_are_dockers() {
        let written = |text: &str| {
            let written = Written::new(OsStr::new(text), Path::new("/base"));
            let path = written.path.to_str().unwrap().to_owned();
            let name = written.name().to_str().unwrap().to_owned();
            (path, name, written.is_directory, written.is_content)
        };
        let of = |path: &str, name: &str, directory, content| {
            (path.to_owned(), name.to_owned(), directory, content)
        };
        assert_eq!(written("a"), of("/base/a", "a", false, false));
        assert_eq!(written("a/"), of("/base/a", "a", true, false));
        assert_eq!(written("a/."), of("/base/a", ".", true, true));
        assert_eq!(written("."), of("/base", ".", true, true));
        assert_eq!(written("/a/../b"), of("/b", "b", false, false));
        assert_eq!(written("/../.."), of("/", ".", false, false));
        assert_eq!(written("/"), of("/", ".", true, false));
    }

    #[test]
    fn no_name_leads_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("../../../../../../../../etc", root.path().join("up")).unwrap();
        symlink("/proc/self/root", root.path().join("magic")).unwrap();
        let names = Names::Inside(Names::Host.directory(root.path()).unwrap());
        for path in ["/out/secret", "/up/passwd", "/magic/etc/passwd"] {
            let found = names.find(Path::new(path), true);
            assert!(found.is_err() || found.unwrap().stat.is_none(), "{path}");
        }
        let found = names.find(Path::new("/out"), true);
        assert!(found.is_err() || found.unwrap().stat.is_none());
    }
}

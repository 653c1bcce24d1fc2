//! Targets of mounts: paths of the container, resolved inside its root while
//! the process still has the host's root. openat2(2), `RESOLVE_IN_ROOT`.
//!
//! A rootfs is foreign data. A symbolic link in it, absolute or full of `..`,
//! would lead a path that is concatenated from strings (`ROOTFS/data`) out to
//! the host. The kernel can resolve a path as if the descriptor of the root
//! were `/`: then every link ends inside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kit::say;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use kit::descriptor::name_of;

/// The kind of a mount and of its target: a directory is attached to a
/// directory, and anything else to anything else (`ENOTDIR` of mount(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// Anything else: a file, a device node, a socket.
    File,
}

impl FileKind {
    /// The kind of the file that `fd` refers to.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let mode = fstat(fd).context("fstat")?.st_mode;
        Ok(
            match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFDIR => FileKind::Directory,
                _ => FileKind::File,
            },
        )
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Directory => "a directory",
            FileKind::File => "a file",
        })
    }
}

/// A path inside the container that can be a mount point: absolute, without
/// `..`, and not the root itself. Holds the path without its leading `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(PathBuf);

impl Target {
    /// Checks a path from the user.
    ///
    /// # Errors
    /// Says which of the three conditions the path violates.
    pub fn new(path: &Path) -> Result<Self> {
        let mut inside = PathBuf::new();
        if !path.is_absolute() {
            bail!(
                "the target {path:?} is relative: name it from the container's root, as in /data"
            );
        }
        for component in path.components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir => {
                    bail!("the target {path:?} contains \"..\": use a path without it")
                }
                _ => {}
            }
        }
        if inside.as_os_str().is_empty() {
            bail!("the target {path:?} is the root itself: use --rootfs for that");
        }
        Ok(Target(inside))
    }

    /// The number of components. `/a` has to be mounted before `/a/b`.
    pub fn depth(&self) -> usize {
        self.0.components().count()
    }

    /// Opens the target inside `root`. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Refuses a path with too many links, or with a magic one (`ELOOP`).
    pub fn open(&self, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        resolve(root, &self.0)
    }

    /// Opens the target inside `root`. Makes it, and the directories that lead
    /// to it, if they are missing.
    ///
    /// # Errors
    /// Refuses a target that leads to the root, or is not of this `kind`.
    pub fn open_or_make(&self, root: BorrowedFd<'_>, kind: FileKind) -> Result<OwnedFd> {
        let fd = open_or_make(root, &self.0, kind)?;
        let (there, top) = (fstat(&fd).context("fstat")?, fstat(root).context("fstat")?);
        if (there.st_dev, there.st_ino) == (top.st_dev, top.st_ino) {
            bail!("the target {self} leads to the root itself");
        }
        let found = FileKind::of(fd.as_fd())?;
        if found != kind {
            bail!("the target {self} is {found}, but the source is {kind}");
        }
        Ok(fd)
    }
}

/// Opens `path` inside `root`. Makes it, and the directories that lead to it,
/// if they are missing. An existing file is not changed, whatever its kind.
///
/// A link on the way may be dangling, such as `/var/run` to a missing `/run`:
/// its target is made, inside the root.
///
/// # Errors
/// Refuses a path with too many links, or with a magic one (`ELOOP`). `ENOTDIR`
/// for a file in the place of a directory.
pub fn open_or_make(root: BorrowedFd<'_>, path: &Path, kind: FileKind) -> Result<OwnedFd> {
    match resolve(root, path)? {
        Some(fd) => Ok(fd),
        None => make(root, path, kind),
    }
}

/// The maximum number of links in a path (path_resolution(7)).
const LINKS: usize = 40;

/// Makes `path`, one component at a time. Each component is opened from a
/// directory that is open already, and a link is followed only by its text:
/// nobody can put anything in the way, and no component leads out of the root.
/// `..` goes back to the previous directory, and not beyond the root.
// ANCHOR: make
fn make(root: BorrowedFd<'_>, path: &Path, kind: FileKind) -> Result<OwnedFd> {
    let top = || root.try_clone_to_owned().context("dup");
    let mut way = vec![top()?];
    let mut rest: VecDeque<OsString> = steps(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let here = way.last().context("no directory to start from")?;
        let failed = |errno: Errno| {
            let way = name_of(here.as_fd());
            anyhow!(errno).context(format!("make {name:?} in {way}{}", whose(errno)))
        };
        let next = match look(here.as_fd(), &name) {
            Err(Errno::ENOENT) => {
                match kind {
                    FileKind::File if rest.is_empty() => make_file(here.as_fd(), &name),
                    _ => mkdirat(here, &*name, Mode::from_bits_truncate(0o755)),
                }
                .map_err(failed)?;
                say!("make {name:?} in {}", name_of(here.as_fd()));
                look(here.as_fd(), &name).map_err(failed)?
            }
            found => found.map_err(failed)?,
        };
        if is_link(next.as_fd())? {
            refuse_magic(here.as_fd(), &name).with_context(|| format!("{path:?} in the root"))?;
            links += 1;
            if links > LINKS {
                return Err(Errno::ELOOP).with_context(|| format!("{path:?} in the root"));
            }
            let to = readlinkat(&next, "").context("readlinkat")?;
            let to = Path::new(&to);
            if to.is_absolute() {
                way = vec![top()?];
            }
            for step in steps(to).rev() {
                rest.push_front(step);
            }
            continue;
        }
        way.push(next);
    }
    way.pop().context("no directory to start from")
}
// ANCHOR_END: make

/// The components of a path: its names and `..`.
fn steps(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|step| match step {
        Component::Normal(_) | Component::ParentDir => Some(step.as_os_str().to_owned()),
        _ => None,
    })
}

/// Opens one component, without following a link.
fn look(directory: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// Refuses a magic link of /proc, whose text is not its target.
fn refuse_magic(directory: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(directory, name, how) {
        Err(Errno::ELOOP) => {
            Err(Errno::ELOOP).with_context(|| format!("openat2({name:?}, RESOLVE_NO_MAGICLINKS)"))
        }
        _ => Ok(()),
    }
}

/// Whether `fd` refers to a device node.
pub fn is_device(fd: BorrowedFd<'_>) -> Result<bool> {
    let mode = fstat(fd).context("fstat")?.st_mode;
    let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    Ok(kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK)
}

fn is_link(fd: BorrowedFd<'_>) -> Result<bool> {
    let mode = fstat(fd).context("fstat")?.st_mode;
    Ok(SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFLNK)
}

/// The remedy for `EACCES` and `EOVERFLOW`: root of a user namespace may write
/// only where the owner is mapped, and create files only for mapped owners.
fn whose(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EOVERFLOW => {
            ", which root inside does not own: create it beforehand, or give the whole root to \
             the user that is root inside (chown -R)"
        }
        _ => "",
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.display())
    }
}

fn make_file(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
}

/// Opens `path` inside `root`: openat2(2) with `O_PATH` and `RESOLVE_IN_ROOT`.
/// Returns `None` for `ENOENT`.
fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Relative to the root: openat2(2) does not accept "".
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    loop {
        match openat2(root, path, how) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Errno::ENOENT) => return Ok(None),
            // Another process renames in the tree at this moment (openat2(2)).
            Err(Errno::EAGAIN) => {}
            Err(Errno::ELOOP) => {
                return Err(Errno::ELOOP).with_context(|| {
                    format!(
                        "/{} leads through too many symbolic links, or through a magic one of \
                         /proc (proc(5)), which may lead out of the root: name the place itself",
                        path.display()
                    )
                });
            }
            Err(errno) => {
                return Err(errno).with_context(|| {
                    format!("openat2(root, {:?}, RESOLVE_IN_ROOT)", path.as_os_str())
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_link_leads_to_is_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        for (link, to) in [
            ("run", "/quay/run"),
            ("etc/up", "../../../../above"),
            ("etc/loop", "loop"),
            ("etc/file", "/no/file"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        fs::write(root.join("plain"), "").unwrap();
        let top = fs::File::open(&root).unwrap();
        let make = |path: &str, kind| open_or_make(top.as_fd(), Path::new(path), kind);
        make("/run/x", FileKind::Directory).unwrap();
        assert!(root.join("quay/run/x").is_dir());
        make("/etc/up/y", FileKind::Directory).unwrap();
        assert!(root.join("above/y").is_dir());
        assert!(!dir.path().join("above").exists());
        make("/etc/file", FileKind::File).unwrap();
        assert!(root.join("no/file").is_file());
        make("/a/../../b", FileKind::Directory).unwrap();
        assert!(root.join("b").is_dir());
        let looped = make("/etc/loop/z", FileKind::Directory).unwrap_err();
        assert!(kit::errno::is(&looped, &[Errno::ELOOP]), "{looped:#}");
        assert!(make("/plain/z", FileKind::Directory).is_err());
        make("/", FileKind::Directory).unwrap();
    }

    #[test]
    fn a_target_is_absolute_below_the_root_and_without_dots() {
        assert_eq!(
            Target::new(Path::new("//a/./b/")).unwrap().0,
            Path::new("a/b")
        );
        for (path, why) in [
            ("a", "relative"),
            ("", "relative"),
            ("/a/../b", ".."),
            ("/.", "root"),
        ] {
            let error = Target::new(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(why), "{path:?}: {error}");
        }
    }
}

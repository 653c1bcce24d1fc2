//! Where a mount goes: paths of the container, resolved inside its root while
//! the host's root is still the process's own. openat2(2), `RESOLVE_IN_ROOT`.
//!
//! A rootfs is foreign data. A symbolic link in it, absolute or full of `..`,
//! would lead a path that is put together from strings
//! (`ROOTFS/data`) out to the host. The kernel can resolve it as if the
//! descriptor of the root were `/`: then every link ends inside.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use process::say;

/// What a mount can be attached to: a directory takes a directory, and
/// anything else takes anything else (`ENOTDIR` of mount(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file, a device node, a socket.
    File,
}

impl Kind {
    /// The kind of what `fd` was opened for.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let mode = fstat(fd).context("fstat")?.st_mode;
        Ok(
            match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFDIR => Kind::Directory,
                _ => Kind::File,
            },
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Directory => "a directory",
            Kind::File => "a file",
        })
    }
}

/// A path inside the container that can be a mount point: absolute, without
/// `..`, and not the root itself. Holds the path without its leading `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(PathBuf);

impl Target {
    /// Checks a path that a user has given.
    ///
    /// # Errors
    /// One that says which of the three it is not.
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
                Component::ParentDir => bail!("the target {path:?} has a \"..\": name it without"),
                _ => {}
            }
        }
        if inside.as_os_str().is_empty() {
            bail!("the target {path:?} is the root itself: use --rootfs for that");
        }
        Ok(Target(inside))
    }

    /// How many directories deep it is. What is mounted at `/a` has to be
    /// there before `/a/b` is.
    pub fn depth(&self) -> usize {
        self.0.components().count()
    }

    /// Opens the target inside `root`, or `None` where there is none.
    ///
    /// # Errors
    /// Those of openat2(2): `ELOOP` for too many links, or a magic one.
    pub fn open(&self, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        resolve(root, &self.0)
    }

    /// Opens the target inside `root`, made first where there is none, with the
    /// directories that lead to it.
    ///
    /// # Errors
    /// Those of openat2(2) and mkdirat(2); where the target is the root or not
    /// of this kind; and where a link on the way leads to something that does
    /// not exist, because making it is more than was asked for.
    pub fn open_or_make(&self, root: BorrowedFd<'_>, kind: Kind) -> Result<OwnedFd> {
        let fd = match resolve(root, &self.0)? {
            Some(fd) => fd,
            None => self.make(root, kind)?,
        };
        let (there, top) = (fstat(&fd).context("fstat")?, fstat(root).context("fstat")?);
        if (there.st_dev, there.st_ino) == (top.st_dev, top.st_ino) {
            bail!("the target {self} leads to the root itself");
        }
        let found = Kind::of(fd.as_fd())?;
        if found != kind {
            bail!("the target {self} is {found}, and what shall be mounted there is {kind}");
        }
        Ok(fd)
    }

    /// Component by component: each is made in a directory that is already
    /// open, so nothing can be put in its way, and mkdirat(2) and `O_EXCL`
    /// follow no link in the last component.
    fn make(&self, root: BorrowedFd<'_>, kind: Kind) -> Result<OwnedFd> {
        let mut parent = root.try_clone_to_owned().context("dup")?;
        let mut path = PathBuf::new();
        for component in self.0.components() {
            path.push(component);
            parent = match resolve(root, &path)? {
                Some(fd) => fd,
                None => {
                    let name = Path::new(component.as_os_str());
                    let made = match kind {
                        Kind::File if path == self.0 => make_file(parent.as_fd(), name),
                        _ => mkdirat(&parent, name, Mode::from_bits_truncate(0o755)),
                    };
                    match made {
                        Ok(()) => say!("make /{} in the root", path.display()),
                        Err(Errno::EEXIST) => bail!(
                            "/{} in the root is a symbolic link to what does not exist there: \
                             make it, or mount elsewhere",
                            path.display()
                        ),
                        Err(errno) => {
                            return Err(errno).with_context(|| {
                                format!(
                                    "make the target /{} in the root{}",
                                    path.display(),
                                    whose(errno)
                                )
                            });
                        }
                    }
                    resolve(root, &path)?
                        .with_context(|| format!("/{} vanished", path.display()))?
                }
            };
        }
        Ok(parent)
    }
}

/// Root of a user namespace may write only where the owner is mapped, and
/// create only what an owner that is mapped can have.
fn whose(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EOVERFLOW => {
            ", which does not belong to root inside: make it beforehand, or give the whole root \
             to the user that is root inside (chown -R)"
        }
        _ => "",
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.display())
    }
}

fn make_file(parent: BorrowedFd<'_>, name: &Path) -> nix::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
}

/// openat2(2) with `O_PATH` and `RESOLVE_IN_ROOT`; `None` for `ENOENT`.
fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    // ANCHOR: exercise_resolve_in_root
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    loop {
        match openat2(root, path, how) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Errno::ENOENT) => return Ok(None),
            // Somebody renames in the tree at this moment (openat2(2)).
            Err(Errno::EAGAIN) => {}
            Err(Errno::EXDEV) => bail!(
                "/{} leads through a magic link of /proc (proc(5)), which may lead out of the \
                 root: name the place itself",
                path.display()
            ),
            Err(errno) => {
                return Err(errno).with_context(|| {
                    format!("openat2(root, {:?}, RESOLVE_IN_ROOT)", path.as_os_str())
                });
            }
        }
    }
    // ANCHOR_END: exercise_resolve_in_root
}

#[cfg(test)]
mod tests {
    use super::*;

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
